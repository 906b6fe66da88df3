"""Node that localizes the images of a camera as they come, over any transport."""

import logging
import re
from collections.abc import Callable, Iterable
from contextlib import suppress
from threading import Thread
from time import monotonic

import numpy as np

from vpr_dhe.errors import BadInputError, ImageError, IndexReplacedError, VprDheError
from vpr_dhe.geography.distance import EARTH
from vpr_dhe.images.decoding import decode_named
from vpr_dhe.images.loading import decode_pixels, load_image
from vpr_dhe.index.place_index import PlaceIndex
from vpr_dhe.integrations.ros2.cdr import CameraImage, CompressedImage
from vpr_dhe.integrations.ros2.counters import Counters, Event
from vpr_dhe.integrations.ros2.latest_image import Arrival, NewestImage
from vpr_dhe.integrations.ros2.messages import Diagnostics, OdometryPose, StaticTransform, Text
from vpr_dhe.integrations.ros2.mount import Mount, StaticTransforms
from vpr_dhe.integrations.ros2.positions import PositionPublisher, sure_position
from vpr_dhe.integrations.ros2.sequence_source import LiveFrames, ReadImage
from vpr_dhe.integrations.ros2.settings import NodeSettings, Publishers
from vpr_dhe.localization.localizer import Localizer
from vpr_dhe.recordings.ros_messages import compressed_file, pixels_of
from vpr_dhe.records import GeoPosition, Near
from vpr_dhe.report.pictures.drawing import draw_match
from vpr_dhe.report.pictures.encoding import jpeg
from vpr_dhe.report.tables.answer_documents import json_line
from vpr_dhe.report.tables.answers import Answer
from vpr_dhe.sequences.motion import PositionMotion
from vpr_dhe.sequences.sequence_localizer import SequenceLocalizer

_log = logging.getLogger(__name__)

# Interval at which the index is checked for writes of other processes, and time to end an answer.
_REFRESH_S, _END_S = 1.0, 0.5
# A prior that is older says nothing about where a robot is.
_MAX_PRIOR_AGE_S = 5.0
# Bound of the motion where odometry is missing.
_MAX_SPEED_M_S = 10.0
_PICTURE_PX = 1280


class LocalizationNode:
    """Localizes the newest image, and publishes the answer and, if it is sure enough, its position.

    Receiving threads call `offer`, `follow_odometry`, `use_prior`, `use_transforms` and
    `request_initial_pose`. One thread runs `work`.

    Args:
        localizer: over an index on this machine.
        publishers: of the node.
        settings: of the node.
        topic: of the images, for diagnostics.
        reopen: opens the index again, for one that is replaced by an index of another model.
        note: called with sentences for people.

    Raises:
        BadInputError: if settings do not fit the index.
    """

    def __init__(
        self,
        localizer: Localizer,
        publishers: Publishers,
        settings: NodeSettings,
        *,
        topic: str = "",
        reopen: Callable[[], Localizer] | None = None,
        note: Callable[[str], object] = _log.warning,
    ) -> None:
        if settings.min_probability is not None and not settings.sequence:
            localizer.require_calibration()
        self._localizer, self._index = localizer, localizer.index
        self._publishers, self._settings = publishers, settings
        self._topic, self._reopen, self._note = topic, reopen, note
        self._counters = Counters()
        self._newest = NewestImage(self._counters)
        self._refreshed_s = monotonic()
        self._noted: set[str] = set()
        self._prior: tuple[GeoPosition, float] | None = None
        self._odometry: OdometryPose | None = None
        self._positions = PositionPublisher(publishers, settings)
        self._transforms = StaticTransforms()
        self.failure: BaseException | None = None

    def offer(self, read: Callable[[], CameraImage]) -> None:
        """Take a function that reads an image that came."""
        self._newest.offer(read)

    def follow_odometry(self, pose: OdometryPose) -> None:
        """Take the newest pose of the odometry."""
        self._odometry = pose

    def use_prior(self, position: GeoPosition) -> None:
        """Take a rough position, around which images are searched for the next seconds."""
        self._prior = position, monotonic()

    def request_initial_pose(self) -> None:
        """Publish the next position that is sure as initial pose."""
        self._positions.request_initial()

    def use_transforms(self, transforms: Iterable[StaticTransform]) -> None:
        """Take static transforms of the robot, which place its camera."""
        self._transforms.update(transforms)

    def work(self) -> None:
        """Localize images until `stop`; an unexpected error is kept in `failure`."""
        try:
            while not self._newest.closed:
                if self._settings.sequence:
                    self._try_to_follow()
                elif (arrival := self._next()) is not None:
                    self._localize(arrival)
        except BaseException as error:  # raised again in the main thread
            self.failure = error

    def stop(self) -> None:
        """Let `work` end after the image at hand."""
        self._newest.close()

    def report(self) -> None:
        """Publish diagnostics of the time since the last report."""
        facts = {"index": str(self._index.folder), "index images": str(len(self._index))}
        status: Diagnostics = self._counters.report(self._topic, facts)
        self._publishers.diagnostics.publish(status)

    def _next(self) -> Arrival | None:
        """Wait for an image up to a second, and bring the index up to date."""
        arrival = self._newest.take(_REFRESH_S)
        self._refresh()
        return arrival

    def _refresh(self) -> bool:
        """Pick up what other processes wrote to the index; True if it has changed."""
        if monotonic() - self._refreshed_s < _REFRESH_S:
            return False
        self._refreshed_s = monotonic()
        try:
            changed = self._reload()
        except (VprDheError, OSError) as error:
            self._counters.fault(str(error))
            self._note_once(str(error))
            return False
        self._counters.fault(None)
        if changed:
            self._note(f"{self._index.folder} has changed: {len(self._index)} images now")
        return changed

    def _reload(self) -> bool:
        """Load the newest state of the index, with its model if that is another one; True if it has changed."""
        try:
            return self._index.refresh()
        except IndexReplacedError:
            if self._reopen is None:
                raise
        self._localizer = self._reopen()
        self._index = self._localizer.index
        return True

    def _localize(self, arrival: Arrival) -> None:
        image = self._read(arrival)
        if image is None:
            return
        message, pixels = image
        try:
            found = self._localizer.localize(pixels, min_probability=self._settings.min_probability, near=self._near())
        except (VprDheError, OSError) as error:  # OSError: of a drive that holds the index
            self._fail(error)
            return
        stamp = message.stamp
        self._publish(arrival, message, pixels, Answer(str(stamp), found, timestamp_s=stamp.seconds))

    def _read(self, arrival: Arrival) -> tuple[CameraImage, np.ndarray] | None:
        """Message and pixels of an image; None if it cannot be read."""
        try:
            message = arrival.read()
            return message, _pixels(message)
        except BadInputError as error:  # also of encodings that are not supported
            self._counters.add(Event.UNREADABLE)
            self._note_once(f"an image cannot be read: {error}")
            return None

    def _try_to_follow(self) -> None:
        try:
            self._follow()
        except (VprDheError, OSError) as error:
            self._fail(error)
            self._next()  # not again before an image or a second has passed

    def _follow(self) -> None:
        """Localize images as a sequence, until the index changes or the node stops."""
        sequence = SequenceLocalizer(self._localizer)
        places = sequence.place_map()
        bound = PositionMotion(places, max_speed_m_s=_MAX_SPEED_M_S) if self._settings.use_odometry else None
        source = LiveFrames(self._next_read, self._camera_odometry)
        for frame in sequence.stream(source.frames(), tracker=sequence.tracker(places, bound)):
            self._publish(*source.current, Answer.of(frame))

    def _next_read(self) -> ReadImage | None:
        """Wait for an image that can be read; None if the index has changed or the node stops."""
        while not self._newest.closed:
            arrival = self._newest.take(_REFRESH_S)
            if self._refresh():
                return None
            image = None if arrival is None else self._read(arrival)
            if arrival is not None and image is not None:
                return arrival, *image
        return None

    def _camera_odometry(self, message: CameraImage) -> OdometryPose | None:
        """Newest pose of the camera by the odometry, which is that of the base if there is one."""
        mount, base = self._mount(message.frame_id), self._odometry
        return None if mount is None or base is None else mount.camera_pose(base)

    def _near(self) -> Near | None:
        if self._prior is None or monotonic() - self._prior[1] > _MAX_PRIOR_AGE_S:
            return None
        return Near(self._prior[0], self._settings.within_m)

    def _publish(self, arrival: Arrival, message: CameraImage, pixels: np.ndarray, answer: Answer) -> None:
        self._publishers.answer.publish(Text(json_line(answer)))
        place = sure_position(answer, self._settings)
        self._counters.answered(1e3 * (monotonic() - arrival.arrived_s))
        if place is None:
            self._counters.add(Event.UNKNOWN)
        elif (mount := self._mount(message.frame_id)) is not None:
            self._positions.publish(message, answer, place, mount)
            self._counters.add(Event.POSITIONS)
        if self._publishers.matches.has_subscribers:
            self._publish_picture(message, pixels, answer)

    def _mount(self, camera_frame: str) -> Mount | None:
        """Mount of the camera; None if no static transforms place it in the frame of the base yet."""
        settings = self._settings
        if settings.mount is not None or settings.base_frame is None:
            return settings.mount or Mount()
        pose = self._transforms.between(settings.base_frame, camera_frame)
        if pose is None:
            self._note_once(
                f"no static transforms from {settings.base_frame} to {camera_frame}, the frame of the images, have "
                "come yet; no position is published before"
            )
            return None
        return Mount.of_optical(pose)

    def _publish_picture(self, message: CameraImage, pixels: np.ndarray, answer: Answer) -> None:
        """Publish the query beside its best match, with inliers."""
        matches = answer.localization.matches if answer.localization else ()
        if not matches or matches[0].id is None or matches[0].verification is None:
            return
        with suppress(VprDheError, OSError):  # the photo of the map may be gone, or the index may have changed
            levels = self._localizer.grey_levels
            candidate = decode_named(self._index.image_path(matches[0].id), levels)
            picture = draw_match(load_image(pixels, levels), candidate, matches[0].verification)
            content = memoryview(jpeg(picture, side_px=_PICTURE_PX))
            self._publishers.matches.publish(CompressedImage(message.stamp, message.frame_id, "jpeg", content))

    def _fail(self, error: VprDheError | OSError) -> None:
        if isinstance(error, ImageError):
            self._counters.add(Event.UNREADABLE)
        else:
            self._counters.failed(str(error))
        self._note_once(str(error))

    def _note_once(self, sentence: str) -> None:
        """Say a sentence, unless it was said before, perhaps with other numbers."""
        kind = re.sub(r"\d+", "0", sentence)
        if kind not in self._noted:
            self._noted.add(kind)
            self._note(sentence)


def _pixels(message: CameraImage) -> np.ndarray:
    """Pixels of a message, of 8 or 16 bits."""
    if isinstance(message, CompressedImage):
        return decode_pixels(compressed_file(message).content)
    return pixels_of(message)


def run_node(node: LocalizationNode, wait: Callable[[float], bool]) -> None:
    """Run a node until `wait`, called with a timeout in seconds, returns True; diagnostics go out once a second.

    An answer that takes longer than half a second more is abandoned. An error of the node is raised here.
    """
    worker = Thread(target=node.work, name="localization", daemon=True)
    worker.start()
    while not wait(1.0) and worker.is_alive():
        node.report()
    node.stop()
    worker.join(_END_S)
    if node.failure is not None:
        raise node.failure


def require_earth(index: PlaceIndex, option: str) -> None:
    """Raise BadInputError unless images of the index have positions in degrees or UTM, which an option needs."""
    if EARTH not in index.snapshot.reference_frames:
        raise BadInputError(
            f"{option} needs positions in degrees or UTM, and {index.folder} has none; leave it out, or index the "
            "images with --positions"
        )
