"""Topics of ROS 2 over Eclipse Cyclone DDS, without an installation of ROS."""

import logging
import math
from collections.abc import Callable
from functools import partial
from threading import Event, Thread
from typing import Any

# The public readers convert each byte of an image to a Python number; these return serialised messages.
from cyclonedds._clayer import ddspy_take, ddspy_write
from cyclonedds.core import DDSException, InstanceState, Policy, Qos, ReadCondition, SampleState, ViewState, WaitSet
from cyclonedds.domain import Domain, DomainParticipant
from cyclonedds.pub import DataWriter
from cyclonedds.sub import DataReader
from cyclonedds.topic import Topic
from cyclonedds.util import duration

from vpr_dhe.errors import BadInputError
from vpr_dhe.integrations.ros2 import idl
from vpr_dhe.integrations.ros2.cdr import (
    CameraImage,
    CompressedImage,
    Stamp,
    read_compressed,
    read_image,
    write_compressed,
)
from vpr_dhe.integrations.ros2.graph import dds_topic
from vpr_dhe.integrations.ros2.messages import (
    UNKNOWN_VARIANCE,
    Diagnostics,
    Fix,
    MapPose,
    OdometryPose,
    Outgoing,
    StaticTransform,
    Text,
)
from vpr_dhe.recordings.fixes import valid_fix
from vpr_dhe.records import GeoPosition

_log = logging.getLogger(__name__)

# ROS 2 serialises with the first version of CDR; readers accept both.
_FIRST_CDR = Policy.DataRepresentation(use_cdrv0_representation=True)
_ANY_CDR = Policy.DataRepresentation(use_cdrv0_representation=True, use_xcdrv2_representation=True)
# QoS profiles of rmw: sensor data, with the latest message only, and the default of publishers.
_SENSOR_QOS = Qos(Policy.Reliability.BestEffort, Policy.Durability.Volatile, Policy.History.KeepLast(1), _ANY_CDR)
_EACH_QOS = Qos(Policy.Reliability.BestEffort, Policy.Durability.Volatile, Policy.History.KeepLast(64), _ANY_CDR)
# QoS profile of tf2 listeners, which also receive earlier messages.
_STATIC_QOS = Qos(
    Policy.Reliability.Reliable(duration(milliseconds=100)),
    Policy.Durability.TransientLocal,
    Policy.History.KeepLast(100),
    _ANY_CDR,
)
# Maximum delay of the node by a slow subscriber.
_MAX_BLOCKING = duration(milliseconds=100)
_RELIABLE_QOS = Qos(
    Policy.Reliability.Reliable(_MAX_BLOCKING), Policy.Durability.Volatile, Policy.History.KeepLast(10), _FIRST_CDR
)
_POLL = duration(milliseconds=200)
_MAX_SAMPLES = 64
# Constants of sensor_msgs.
_STATUS_FIX, _SERVICE_GPS, _APPROXIMATED = 0, 1, 1


class DdsTransport:
    """Participant of a domain, with the readers and writers of a node; one thread receives.

    Args:
        domain: number of the domain, from `graph.domain_id`.
        config: configuration of Cyclone DDS, from `graph.cyclone_config`; empty for its default.

    Raises:
        BadInputError: if the domain cannot be joined.
    """

    def __init__(self, domain: int, config: str) -> None:
        try:
            # A reference is kept, because the domain is deleted with it.
            self._domain = Domain(domain, config) if config else None
            self._participant = DomainParticipant(domain)
        except DDSException as error:
            raise BadInputError(
                f"domain {domain} of ROS 2 cannot be joined ({error}); check CYCLONEDDS_URI and ROS_DOMAIN_ID"
            ) from error
        self._receivers: list[tuple[DataReader, Callable[[bytes], None]]] = []
        self._ended = Event()
        self._thread: Thread | None = None

    def publisher(self, kind: type, topic: str) -> "DdsPublisher":
        """Create a publisher of one type of `messages` on a topic, given by its full name."""
        form, encode = _WRITTEN[kind]
        return DdsPublisher(DataWriter(self._participant, self._topic(topic, form), qos=_RELIABLE_QOS), encode)

    def subscribe_images(
        self, topic: str, receive: Callable[[Callable[[], CameraImage]], None], *, compressed: bool
    ) -> None:
        """Call `receive` with a function that reads the latest image of a topic, whenever one arrives."""
        form, read = (idl.CompressedImage, read_compressed) if compressed else (idl.Image, read_image)
        self._subscribe(topic, form, lambda message: receive(partial(read, message)), _SENSOR_QOS)

    def subscribe_odometry(self, topic: str, receive: Callable[[OdometryPose], None]) -> None:
        """Call `receive` with each nav_msgs/Odometry of a topic."""
        self._subscribe(topic, idl.Odometry, lambda message: receive(_odometry(message)), _EACH_QOS)

    def subscribe_fixes(self, topic: str, receive: Callable[[GeoPosition], None]) -> None:
        """Call `receive` with each valid sensor_msgs/NavSatFix of a topic."""

        def take(message: bytes) -> None:
            fix = idl.NavSatFix.deserialize(message)
            position = valid_fix(fix.latitude, fix.longitude)
            if position is not None and fix.status.status >= _STATUS_FIX:
                receive(position)

        self._subscribe(topic, idl.NavSatFix, take, _EACH_QOS)

    def subscribe_requests(self, topic: str, receive: Callable[[], None]) -> None:
        """Call `receive` for each std_msgs/Empty of a topic."""
        self._subscribe(topic, idl.Empty, lambda _: receive(), _EACH_QOS)

    def subscribe_static_transforms(self, topic: str, receive: Callable[[list[StaticTransform]], None]) -> None:
        """Call `receive` with the transforms of each tf2_msgs/TFMessage of a topic, including earlier ones."""
        self._subscribe(topic, idl.TFMessage, lambda message: receive(_static_transforms(message)), _STATIC_QOS)

    def start(self) -> None:
        """Start receiving; call it after all subscriptions."""
        self._thread = Thread(target=self._receive, name="ros2", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop receiving and leave the domain."""
        self._ended.set()
        if self._thread is not None:
            self._thread.join()
        self._receivers.clear()
        # With all its entities; otherwise other nodes would consider it alive until its lease ends.
        self._participant._delete(self._participant._ref)  # pyright: ignore[reportCallIssue]

    def _topic(self, name: str, form: type) -> Topic:
        return Topic(self._participant, dds_topic(name), form)

    def _subscribe(self, topic: str, form: type, receive: Callable[[bytes], None], qos: Qos) -> None:
        reader = DataReader(self._participant, self._topic(topic, form), qos=qos)
        self._receivers.append((reader, receive))

    def _receive(self) -> None:
        waiting = WaitSet(self._participant)
        unread = ViewState.Any | InstanceState.Any | SampleState.NotRead
        conditions = [ReadCondition(reader, unread) for reader, _ in self._receivers]
        for condition in conditions:
            waiting.attach(condition)
        while not self._ended.is_set():
            if waiting.wait(_POLL):
                for reader, receive in self._receivers:
                    for message in _taken(reader):
                        self._hand_on(message, receive)
        for condition in conditions:
            waiting.detach(condition)

    def _hand_on(self, message: bytes, receive: Callable[[bytes], None]) -> None:
        """Pass a message to `receive`; an unreadable message must not end the thread."""
        try:
            receive(message)
        except Exception:
            _log.warning("a message of %d bytes cannot be read", len(message), exc_info=True)


def _taken(reader: DataReader) -> list[bytes]:
    """Serialised messages received so far, in order."""
    taken = ddspy_take(reader._ref, ViewState.Any | InstanceState.Any | SampleState.Any, _MAX_SAMPLES)
    if isinstance(taken, int):
        return []
    return [message for message, info in taken if info.valid_data]


class DdsPublisher:
    """Publisher of one topic."""

    def __init__(self, writer: DataWriter, encode: Callable[[Any], Any]) -> None:
        self._writer, self._encode = writer, encode

    @property
    def has_subscribers(self) -> bool:
        """Whether somebody has subscribed to the topic."""
        return bool(self._writer.get_matched_subscriptions())

    def publish(self, message: Outgoing) -> None:
        """Publish a message; it is lost if subscribers do not accept it in time."""
        encoded = self._encode(message)
        try:
            if isinstance(encoded, bytes):
                ddspy_write(self._writer._ref, encoded)
            else:
                self._writer.write(encoded)
        except DDSException as error:
            if error.code != DDSException.DDS_RETCODE_TIMEOUT:
                raise


def _header(stamp: Stamp, frame_id: str) -> idl.Header:
    return idl.Header(idl.Time(stamp.sec, stamp.nanosec), frame_id)


def _nav_sat_fix(fix: Fix) -> idl.NavSatFix:
    (east, both), (_, north) = fix.covariance_m2.tolist()
    covariance: Any = [east, both, 0.0, both, north, 0.0, 0.0, 0.0, UNKNOWN_VARIANCE]
    return idl.NavSatFix(
        header=_header(fix.stamp, fix.frame_id),
        status=idl.NavSatStatus(_STATUS_FIX, _SERVICE_GPS),
        latitude=fix.position.latitude_deg,
        longitude=fix.position.longitude_deg,
        altitude=math.nan,
        position_covariance=covariance,
        position_covariance_type=_APPROXIMATED,
    )


def _pose(pose: MapPose) -> idl.PoseWithCovarianceStamped:
    (x, both), (_, y) = pose.covariance_m2.tolist()
    unknown = UNKNOWN_VARIANCE
    # Of x, y, z, and rotations about x, y and z, by rows.
    diagonal = (x, y, unknown, unknown, unknown, pose.yaw_variance_rad2)
    covariance: Any = [0.0] * 36
    covariance[::7] = diagonal
    covariance[1] = covariance[6] = both
    half = 0.0 if pose.yaw_rad is None else pose.yaw_rad / 2
    return idl.PoseWithCovarianceStamped(
        _header(pose.stamp, pose.frame_id),
        idl.PoseWithCovariance(
            idl.Pose(idl.Point(pose.x_m, pose.y_m, 0.0), idl.Quaternion(0.0, 0.0, math.sin(half), math.cos(half))),
            covariance,
        ),
    )


def _diagnostics(found: Diagnostics) -> idl.DiagnosticArray:
    values: Any = [idl.KeyValue(key, value) for key, value in found.values.items()]
    status: Any = [idl.DiagnosticStatus(int(found.level), "vpr_dhe", found.message, "", values)]
    return idl.DiagnosticArray(_header(found.stamp, ""), status)


def _odometry(message: bytes) -> OdometryPose:
    found = idl.Odometry.deserialize(message)
    position, turn = found.pose.pose.position, found.pose.pose.orientation
    yaw = math.atan2(2 * (turn.w * turn.z + turn.x * turn.y), 1 - 2 * (turn.y**2 + turn.z**2))
    stamp = found.header.stamp
    return OdometryPose(Stamp(stamp.sec, stamp.nanosec), position.x, position.y, yaw)


def _static_transforms(message: bytes) -> list[StaticTransform]:
    found = []
    transforms: Any = idl.TFMessage.deserialize(message).transforms
    for one in transforms:
        at, turn = one.transform.translation, one.transform.rotation
        rotation = (turn.x, turn.y, turn.z, turn.w)
        found.append(StaticTransform(one.header.frame_id, one.child_frame_id, (at.x, at.y, at.z), rotation))
    return found


_WRITTEN: dict[type, tuple[type, Callable[[Any], Any]]] = {
    Text: (idl.String, lambda message: idl.String(message.text)),
    Fix: (idl.NavSatFix, _nav_sat_fix),
    MapPose: (idl.PoseWithCovarianceStamped, _pose),
    Diagnostics: (idl.DiagnosticArray, _diagnostics),
    CompressedImage: (idl.CompressedImage, write_compressed),
}
