"""Bags of ROS 1 and ROS 2: frames from one topic, and positions from another."""

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

from vpr_dhe.errors import DatasetError, VprDheError
from vpr_dhe.recordings.base import ImageFile, RecordedFrame
from vpr_dhe.recordings.clock import TopicClock, choose_clock
from vpr_dhe.recordings.fixes import FixTrack, valid_fix
from vpr_dhe.recordings.ros_messages import FIX_TYPE, IMAGE_TYPES, RAW_TYPE, compressed_file, raw_file
from vpr_dhe.records import GeoPosition, StrPath
from vpr_dhe.runtime.extras import require_extra

_ROS1_SUFFIX = ".bag"
# NavSatStatus: values below 0 mean that there is no fix.
_STATUS_FIX = 0


@contextmanager
def open_bag(path: StrPath, topic: str, fix_topic: str | None = None) -> Iterator["BagSource"]:
    """Open a `.bag` of ROS 1, or a folder, `.db3` or `.mcap` of ROS 2.

    Args:
        path: path of the bag.
        topic: topic of raw or compressed images.
        fix_topic: topic of satellite fixes.

    Raises:
        DatasetError: if the bag is missing, damaged or empty, or has no such topic.
        MissingExtraError: if rosbags is not installed.
    """
    path = Path(path)
    rosbags = require_extra("bags")
    if not path.exists():
        raise DatasetError(f"bag {path} does not exist; expected a .bag file, or a folder, .db3 or .mcap of ROS 2")
    with _as_dataset_error(path):
        reader = _reader(path)
        reader.open()
    try:
        yield BagSource(path, reader, _deserializer(rosbags, path), topic, fix_topic)
    finally:
        reader.close()


class BagSource:
    """Images of one topic, with times from their headers or, if these are implausible, from the recording.

    Positions are interpolated between fixes, by header times if those of both topics are plausible; see `choose_clock`
    and `FixTrack`. `notes` are sentences about header times that are not used.
    """

    keeps_unix_time = True

    def __init__(
        self, path: Path, reader: Any, deserialize: Callable[[bytes, str], Any], topic: str, fix_topic: str | None
    ) -> None:
        self._path, self._reader, self._deserialize = path, reader, deserialize
        # `.` and `..` have no names; links keep their own.
        self._bag = path.resolve() if path.name in ("", "..") else path.absolute()
        self._topic, self._fix_topic = topic, fix_topic
        self._require_topic(topic, IMAGE_TYPES, "images")
        if fix_topic is not None:
            self._require_topic(fix_topic, (FIX_TYPE,), "fixes")
        self._clock = self._read_clock(topic)
        fix_clock = self._read_clock(fix_topic) if fix_topic else self._clock
        clocks = {topic: self._clock, fix_topic or topic: fix_clock}
        self.notes = tuple(f"{self._path} {name}: {clock.note}" for name, clock in clocks.items() if clock.note)
        by_headers = self._clock.by_headers and fix_clock.by_headers
        self._meeting_times_s = self._clock.times_s if by_headers else self._clock.received_s
        fix_times_s = fix_clock.times_s if by_headers else fix_clock.received_s
        self._fixes = FixTrack(self._read_fixes(fix_topic, fix_times_s.tolist()) if fix_topic else ())

    @property
    def name(self) -> str:
        """Path of two folders, named after bag and topic."""
        bag = self._bag.name if self._path.is_dir() else self._bag.stem
        return f"{bag}/{re.sub(r'[^A-Za-z0-9_-]+', '_', self._topic.strip('/'))}"

    @property
    def identity(self) -> str:
        """Description of the bag and topics, independent of its folder."""
        span = f"from {self._reader.start_time} to {self._reader.end_time} ns"
        positions = f"positions on {self._fix_topic}" if self._fix_topic else "no positions"
        return f"{self.announced_frames} images on {self._topic} in {self._bag.name} ({span}, {positions})"

    @property
    def announced_frames(self) -> int:
        """Number of messages on the topic."""
        return self._reader.topics[self._topic].msgcount

    def frames(self) -> Iterator[RecordedFrame]:
        """Read all images in the order of recording.

        Raises:
            DatasetError: if the bag is damaged.
        """
        times = zip(self._clock.times_s.tolist(), self._meeting_times_s.tolist(), strict=True)
        for number, ((message, kind, _), (time_s, meeting_s)) in enumerate(
            zip(self._messages(self._topic), times, strict=True)
        ):
            image = partial(_image_file, message, kind)
            yield RecordedFrame(number, time_s, self._fixes.at(meeting_s), image)

    def _messages(self, topic: str) -> Iterator[tuple[Any, str, int]]:
        """Yield messages of one topic, their types, and their times of reception in nanoseconds."""
        with _as_dataset_error(self._path):
            for connection, received_ns, raw in self._reader.messages(self._reader.topics[topic].connections):
                yield self._deserialize(raw, connection.msgtype), connection.msgtype, received_ns

    def _read_clock(self, topic: str) -> TopicClock:
        """Choose the clock of a topic by reading all of its messages once, up to any damage."""
        stamps_s, received_s = list[float](), list[float]()
        with suppress(DatasetError):  # raised again where the message is read
            for message, _, received_ns in self._messages(topic):
                stamps_s.append(_stamp_s(message))
                received_s.append(1e-9 * received_ns)
        return choose_clock(stamps_s, received_s)

    def _read_fixes(self, topic: str, times_s: Sequence[float]) -> Iterator[tuple[float, GeoPosition]]:
        for (message, _, _), time_s in zip(self._messages(topic), times_s, strict=True):
            position = valid_fix(message.latitude, message.longitude)
            if position and message.status.status >= _STATUS_FIX:
                yield time_s, position

    def _require_topic(self, topic: str, types: tuple[str, ...], what: str) -> None:
        topics = self._reader.topics
        suited = sorted(name for name, info in topics.items() if info.msgtype in types)
        if topic in suited:
            if not topics[topic].msgcount:
                raise DatasetError(f"bag {self._path} holds no messages on {topic}; nothing was recorded on it")
            return
        found = f"has {topics[topic].msgtype} on {topic}" if topic in topics else f"has no topic {topic}"
        others = f"topics with {what}: {', '.join(suited)}" if suited else f"no topic of it has {what}"
        raise DatasetError(f"bag {self._path} {found}; {others}")


def _image_file(message: Any, kind: str) -> ImageFile:
    return raw_file(message) if kind == RAW_TYPE else compressed_file(message)


def _stamp_s(message: Any) -> float:
    stamp = message.header.stamp
    return stamp.sec + 1e-9 * stamp.nanosec


def _reader(path: Path) -> Any:
    from rosbags import rosbag1, rosbag2

    return rosbag1.Reader(path) if path.suffix == _ROS1_SUFFIX else rosbag2.Reader(path)


def _deserializer(rosbags: Any, path: Path) -> Callable[[bytes, str], Any]:
    """Deserialiser with the definitions of one release; images and fixes are the same in all releases."""
    stores = rosbags.typesys.Stores
    if path.suffix == _ROS1_SUFFIX:
        return rosbags.typesys.get_typestore(stores.ROS1_NOETIC).deserialize_ros1
    return rosbags.typesys.get_typestore(stores.ROS2_HUMBLE).deserialize_cdr


@contextmanager
def _as_dataset_error(path: Path) -> Iterator[None]:
    """Convert errors of any kind, which damaged bags raise, to DatasetError."""
    try:
        yield
    except VprDheError:
        raise
    except Exception as error:
        raise DatasetError(
            f"bag {path} cannot be read ({error}); if its recording was cut off, `rosbag reindex` of ROS 1 or "
            "`ros2 bag reindex` may repair it"
        ) from error
