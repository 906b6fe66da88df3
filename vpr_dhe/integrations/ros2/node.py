"""Node that localizes the images of a camera as they come, over any transport."""

import logging
import math
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field, replace
from threading import Thread
from time import monotonic

import numpy as np
from jaxtyping import Float64

from vpr_dhe.errors import BadInputError, ImageError, VprDheError
from vpr_dhe.geography.distance import EARTH, RADIUS_M
from vpr_dhe.images import decode_named, decode_pixels, load_image
from vpr_dhe.index.place_index import PlaceIndex
from vpr_dhe.integrations.ros2.cdr import CameraImage, CompressedImage
from vpr_dhe.integrations.ros2.counters import Counters, Event
from vpr_dhe.integrations.ros2.map_frame import MapFrame
from vpr_dhe.integrations.ros2.messages import Diagnostics, Fix, MapPose, OdometryPose, Publisher, Text
from vpr_dhe.integrations.ros2.newest import Arrival, NewestImage
from vpr_dhe.localization.confidence import confidence_of
from vpr_dhe.localization.database import VerifiedIndex
from vpr_dhe.localization.localizer import Localizer
from vpr_dhe.recordings.ros_messages import compressed_file, pixels_of
from vpr_dhe.records import GeoPosition, Near
from vpr_dhe.report.pictures.drawing import draw_match
from vpr_dhe.report.pictures.encoding import jpeg
from vpr_dhe.report.tables.answers import Answer, json_line
from vpr_dhe.report.tables.positions import QueryPosition, query_position
from vpr_dhe.sequences.frames import SequenceFrame
from vpr_dhe.sequences.motion import PositionMotion
from vpr_dhe.sequences.odometry import Odometry
from vpr_dhe.sequences.sequence_localizer import LocalizedFrame, SequenceLocalizer

_log = logging.getLogger(__name__)

# Interval at which the index is checked for writes of other processes, and time to end an answer.
_REFRESH_S, _END_S = 1.0, 0.5
# A prior that is older says nothing about where a robot is.
_MAX_PRIOR_AGE_S = 5.0
# Variance per axis of a uniform disc within which images show one place; and of the heading of an image that matches.
_PLACE_M2 = RADIUS_M**2 / 4
_HEADING_RAD2 = math.radians(15) ** 2
# Bound of the motion where odometry is missing.
_MAX_SPEED_M_S = 10.0
_PICTURE_PX = 1280


@dataclass(frozen=True)
class NodeSettings:
    """Settings of the node.

    Args:
        min_inliers: inliers of a match whose position is published.
        min_probability: probability of one, or of the place in a sequence; needs a calibrated index, except there.
        map_frame: name of the frame of poses.
        map: its origin and direction.
        within_m: radius of the search around a prior position.
        sequence: follow the camera from image to image.
        use_odometry: bound the motion in a sequence by odometry.
        initial_pose: publish a pose once when sure, and again on request.
    """

    min_inliers: int = 50
    min_probability: float | None = None
    map_frame: str = "map"
    map: MapFrame = field(default_factory=MapFrame)
    within_m: float = 100.0
    sequence: bool = False
    use_odometry: bool = False
    initial_pose: bool = False


@dataclass(frozen=True)
class Publishers:
    """Publishers of the node, one per topic."""

    answer: Publisher
    fix: Publisher
    pose: Publisher
    matches: Publisher
    diagnostics: Publisher
    initial_pose: Publisher | None = None


class LocalizationNode:
    """Localizes the newest image, and publishes the answer and, if it is sure enough, its position.

    Receiving threads call `offer`, `follow_odometry`, `use_prior` and `request_initial_pose`. One thread runs `work`.

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
        self._localizer, self._index = localizer, _index_of(localizer)
        self._publishers, self._settings = publishers, settings
        self._topic, self._reopen, self._note = topic, reopen, note
        self._counters = Counters()
        self._newest = NewestImage(self._counters)
        self._refreshed_s = monotonic()
        self._noted: set[str] = set()
        self._prior: tuple[GeoPosition, float] | None = None
        self._odometry: OdometryPose | None = None
        self._wants_pose = settings.initial_pose
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
        self._wants_pose = True

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
            changed = self._index.refresh()
            if changed and self._index.spec != self._localizer.extractor.spec and self._reopen:
                self._localizer = self._reopen()
                self._index = _index_of(self._localizer)
        except (VprDheError, OSError) as error:
            self._counters.fault(str(error))
            self._note_once(str(error))
            return False
        self._counters.fault(None)
        if changed:
            self._note(f"{self._index.folder} has changed: {len(self._index)} images now")
        return changed

    def _localize(self, arrival: Arrival) -> None:
        image = self._read(arrival)
        if image is None:
            return
        message, pixels = image
        try:
            found = self._localizer.localize(pixels, min_probability=self._settings.min_probability, near=self._near())
        except VprDheError as error:
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
        except VprDheError as error:
            self._fail(error)
            self._next()  # not again before an image or a second has passed

    def _follow(self) -> None:
        """Localize images as a sequence, until the index changes or the node stops."""
        sequence = SequenceLocalizer(self._localizer)
        places = sequence.place_map()
        bound = PositionMotion(places, max_speed_m_s=_MAX_SPEED_M_S) if self._settings.use_odometry else None
        source = _Source(self)
        for frame in sequence.stream(source.frames(), tracker=sequence.tracker(places, bound)):
            message, pixels, arrival = source.current
            self._publish(arrival, message, pixels, _sequence_answer(frame))

    def next_read(self) -> tuple[Arrival, CameraImage, np.ndarray] | None:
        """Wait for an image that can be read; None if the index has changed or the node stops."""
        while not self._newest.closed:
            arrival = self._newest.take(_REFRESH_S)
            if self._refresh():
                return None
            image = None if arrival is None else self._read(arrival)
            if arrival is not None and image is not None:
                return arrival, *image
        return None

    @property
    def odometry(self) -> OdometryPose | None:
        """Newest pose of the odometry."""
        return self._odometry

    def _near(self) -> Near | None:
        if self._prior is None or monotonic() - self._prior[1] > _MAX_PRIOR_AGE_S:
            return None
        return Near(self._prior[0], self._settings.within_m)

    def _publish(self, arrival: Arrival, message: CameraImage, pixels: np.ndarray, answer: Answer) -> None:
        self._publishers.answer.publish(Text(json_line(answer)))
        place = self._sure_position(answer)
        self._counters.answered(1e3 * (monotonic() - arrival.arrived_s))
        if place is None:
            self._counters.add(Event.UNKNOWN)
        else:
            self._publish_position(message, answer, place)
        if self._publishers.matches.has_subscribers:
            self._publish_picture(message, pixels, answer)

    def _sure_position(self, answer: Answer) -> QueryPosition | None:
        """Position of an answer, if that is sure enough to be published."""
        least = self._settings.min_probability or 0.0
        if answer.belief is not None:
            best = answer.belief.best
            return None if best is None or best.probability < least else query_position(answer)
        matches = answer.localization.matches if answer.localization else ()
        if not matches:
            return None
        checked = matches[0].verification is not None
        return None if checked and matches[0].inliers < self._settings.min_inliers else query_position(answer)

    def _publish_position(self, message: CameraImage, answer: Answer, place: QueryPosition) -> None:
        """Publish a fix for degrees without an origin of the map, else a pose in the map."""
        covariance = _covariance(place)
        metres = self._settings.map.metres(place.position)
        if metres is not None:
            heading = _heading_deg(answer, place)
            yaw = None if heading is None else self._settings.map.yaw_rad(heading)
            pose = MapPose(
                message.stamp, self._settings.map_frame, *metres, self._settings.map.covariance(covariance), yaw
            )
            pose = pose if yaw is None else replace(pose, yaw_variance_rad2=_HEADING_RAD2)
            self._publishers.pose.publish(pose)
            self._publish_initial(pose, answer)
        elif isinstance(place.position, GeoPosition):
            self._publishers.fix.publish(Fix(message.stamp, message.frame_id, place.position, covariance))
        self._counters.add(Event.POSITIONS)

    def _publish_initial(self, pose: MapPose, answer: Answer) -> None:
        confidence = confidence_of(answer.localization) if answer.belief is None else None
        if self._wants_pose and self._publishers.initial_pose is not None and confidence in (None, "sure"):
            self._wants_pose = False
            self._publishers.initial_pose.publish(pose)

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

    def _fail(self, error: VprDheError) -> None:
        self._counters.add(Event.FAILED if not isinstance(error, ImageError) else Event.UNREADABLE)
        self._note_once(str(error))

    def _note_once(self, sentence: str) -> None:
        if sentence not in self._noted:
            self._noted.add(sentence)
            self._note(sentence)


class _Source:
    """Frames of a node for a sequence, and the one that is being localized."""

    def __init__(self, node: LocalizationNode) -> None:
        self._node = node
        self._before: OdometryPose | None = None

    def frames(self) -> Iterator[SequenceFrame]:
        """Frames until the index changes or the node stops."""
        while (read := self._node.next_read()) is not None:
            arrival, message, pixels = read
            self.current = message, pixels, arrival
            yield SequenceFrame(pixels, message.stamp.seconds, self._moved(), str(message.stamp), arrival.dropped)

    def _moved(self) -> Odometry | None:
        before, self._before = self._before, self._node.odometry
        return None if before is None or self._before is None else motion_between(before, self._before)


def motion_between(before: OdometryPose, after: OdometryPose) -> Odometry:
    """Motion from one pose of an odometry to another, for a camera that looks along the robot's x axis."""
    east, north = after.x_m - before.x_m, after.y_m - before.y_m
    sin, cos = math.sin(before.yaw_rad), math.cos(before.yaw_rad)
    forward, left = cos * east + sin * north, cos * north - sin * east
    turn = math.remainder(after.yaw_rad - before.yaw_rad, math.tau)
    return Odometry.of_displacement(forward, -left, -math.degrees(turn))


def _index_of(localizer: Localizer) -> PlaceIndex:
    assert isinstance(localizer.database, VerifiedIndex), "a node needs an index on this machine"
    return localizer.database.index


def _sequence_answer(frame: LocalizedFrame) -> Answer:
    return Answer(frame.name or "", frame.localization, frame.error, frame.belief, frame.timestamp_s)


def _pixels(message: CameraImage) -> np.ndarray:
    """Pixels of a message, of 8 or 16 bits."""
    if isinstance(message, CompressedImage):
        return decode_pixels(compressed_file(message).content)
    return pixels_of(message)


def _covariance(place: QueryPosition) -> Float64[np.ndarray, "2 2"]:
    """Covariance of an estimate; of an indexed image, that of a place."""
    return np.eye(2) * _PLACE_M2 if place.estimate is None else place.estimate.covariance_m2


def _heading_deg(answer: Answer, place: QueryPosition) -> float | None:
    """Heading of the camera or, as a match looks the same way, of the image that it is placed by."""
    if place.heading_deg is not None:
        return place.heading_deg
    matches = answer.localization.matches if answer.localization else ()
    if answer.belief is not None and answer.belief.best is not None:
        image = answer.belief.best.image
        return next((match.heading_deg for match in matches if match.image == image), None)
    return matches[0].heading_deg if matches else None


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
    if EARTH not in index.snapshot.worlds:
        raise BadInputError(
            f"{option} needs positions in degrees or UTM, and {index.folder} has none; leave it out, or index the "
            "images with --positions"
        )
