"""Bags and videos as robots write them, of a few small frames."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from rosbags import rosbag1, rosbag2
from rosbags.typesys import Stores, get_typestore

START_NS = 1_700_000_000_000_000_000
STEP_NS = 500_000_000
IMAGES, FIXES = "/camera/image_raw", "/gps/fix"
BAG_NAMES = ("drive.bag", "drive-db3", "drive-mcap")


def small_frames(count: int = 12, seed: int = 3) -> list[np.ndarray]:
    """Coarse noise, enlarged: frames of 80 x 64 that differ from one another, RGB."""
    rng = np.random.default_rng(seed)
    coarse = [rng.integers(0, 256, (8, 10, 3), np.uint8) for _ in range(count)]
    return [cv2.resize(image, (80, 64), interpolation=cv2.INTER_CUBIC) for image in coarse]


@dataclass
class Bag:
    """What a bag will hold: messages of topics, each with its type, at times.

    They are received 40 ms after the time of their header, or at `received_ns` if that is set when they are added.
    """

    path: Path
    compressed: bool = False
    received_ns: int | None = None
    messages: list[tuple[str, str, int, Any]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._is_ros1 = self.path.suffix == ".bag"
        self.store = get_typestore(Stores.ROS1_NOETIC if self._is_ros1 else Stores.ROS2_HUMBLE)

    def image(self, time_ns: int, pixels: np.ndarray, encoding: str = "rgb8", topic: str = IMAGES, **fields) -> None:
        height, width = pixels.shape[:2]
        data = np.frombuffer(pixels.tobytes(), np.uint8)
        known = {"height": height, "width": width, "encoding": encoding, "is_bigendian": 0}
        self._add(topic, "Image", time_ns, **(known | {"step": data.size // height, "data": data} | fields))

    def file(self, time_ns: int, content: bytes, topic: str = IMAGES) -> None:
        self._add(topic, "CompressedImage", time_ns, format="jpeg", data=np.frombuffer(content, np.uint8))

    def fix(self, time_ns: int, latitude: float, longitude: float, status: int = 0) -> None:
        types = self.store.types
        self._add(
            FIXES,
            "NavSatFix",
            time_ns,
            status=types["sensor_msgs/msg/NavSatStatus"](status=status, service=1),
            latitude=latitude,
            longitude=longitude,
            altitude=0.0,
            position_covariance=np.zeros(9),
            position_covariance_type=0,
        )

    def write(self) -> Path:
        """Write the messages."""
        if self._is_ros1:
            writer, serialize = rosbag1.Writer(self.path), self.store.serialize_ros1
            if self.compressed:
                writer.set_compression(rosbag1.Writer.CompressionFormat.BZ2)
        else:
            plugin = rosbag2.StoragePlugin.MCAP if "mcap" in self.path.name else rosbag2.StoragePlugin.SQLITE3
            writer = rosbag2.Writer(self.path, version=9, storage_plugin=plugin)
            serialize = self.store.serialize_cdr
        with writer:
            connections: dict[str, Any] = {}
            for topic, kind, received_ns, message in self.messages:
                if topic not in connections:
                    connections[topic] = writer.add_connection(topic, kind, typestore=self.store)
                writer.write(connections[topic], received_ns, bytes(serialize(message, kind)))
        return self.path

    def _add(self, topic: str, name: str, time_ns: int, **fields: object) -> None:
        types, kind = self.store.types, f"sensor_msgs/msg/{name}"
        stamp = types["builtin_interfaces/msg/Time"](sec=time_ns // 10**9, nanosec=time_ns % 10**9)
        sequence = {"seq": 0} if self._is_ros1 else {}
        header = types["std_msgs/msg/Header"](stamp=stamp, frame_id="camera", **sequence)
        received_ns = time_ns + 40_000_000 if self.received_ns is None else self.received_ns
        self.messages.append((topic, kind, received_ns, types[kind](header=header, **fields)))


def bag_of(path: Path, frames: Sequence[np.ndarray]) -> Path:
    """A bag of frames half a second apart, with fixes once a second that go north by 1e-4 degrees each."""
    bag = Bag(path)
    for number, pixels in enumerate(frames):
        time_ns = START_NS + number * STEP_NS
        bag.image(time_ns, pixels)
        if number % 2 == 0:
            bag.fix(time_ns, 48.0 + 1e-4 * number / 2, 2.0)
    return bag.write()


def video_of(path: Path, frames: Iterable[np.ndarray], fps: float = 10.0) -> Path:
    """A video without loss."""
    first, *others = frames
    height, width = first.shape[:2]
    writer = cv2.VideoWriter(str(path), cv2.CAP_FFMPEG, cv2.VideoWriter_fourcc(*"FFV1"), fps, (width, height))
    for pixels in (first, *others):
        writer.write(cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR))
    writer.release()
    return path
