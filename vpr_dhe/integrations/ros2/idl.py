"""Message types of ROS 2 as IDL types, with the names of its middleware.

Sources: definitions of common_interfaces 5.3 (Jazzy; std_msgs, sensor_msgs, geometry_msgs, nav_msgs, diagnostic_msgs),
builtin_interfaces of rcl_interfaces 2.0 and tf2_msgs of geometry2 0.36; "Topic and Service name mapping to DDS",
design.ros2.org. Messages are equal in Humble, Jazzy and Kilted.
"""

from dataclasses import dataclass, field

from cyclonedds.idl import IdlStruct
from cyclonedds.idl.types import array, float64, int8, int32, sequence, uint8, uint16, uint32


class _ReprMeta(type(IdlStruct)):
    """Metaclass of messages with the standard repr of classes, on which run-time type checkers rely."""

    def __repr__(cls) -> str:
        return type.__repr__(cls)


class Message(IdlStruct, metaclass=_ReprMeta):
    """Base of all messages."""


@dataclass
class Time(Message, typename="builtin_interfaces::msg::dds_::Time_"):
    """builtin_interfaces/Time."""

    sec: int32 = 0
    nanosec: uint32 = 0


@dataclass
class Header(Message, typename="std_msgs::msg::dds_::Header_"):
    """std_msgs/Header."""

    stamp: Time = field(default_factory=Time)
    frame_id: str = ""


@dataclass
class String(Message, typename="std_msgs::msg::dds_::String_"):
    """std_msgs/String."""

    data: str = ""


@dataclass
class Empty(Message, typename="std_msgs::msg::dds_::Empty_"):
    """std_msgs/Empty; IDL has no structure without a member."""

    structure_needs_at_least_one_member: uint8 = 0


@dataclass
class Image(Message, typename="sensor_msgs::msg::dds_::Image_"):
    """sensor_msgs/Image."""

    header: Header
    height: uint32
    width: uint32
    encoding: str
    is_bigendian: uint8
    step: uint32
    data: sequence[uint8]


@dataclass
class CompressedImage(Message, typename="sensor_msgs::msg::dds_::CompressedImage_"):
    """sensor_msgs/CompressedImage."""

    header: Header
    format: str
    data: sequence[uint8]


@dataclass
class NavSatStatus(Message, typename="sensor_msgs::msg::dds_::NavSatStatus_"):
    """sensor_msgs/NavSatStatus."""

    status: int8 = 0
    service: uint16 = 0


@dataclass
class NavSatFix(Message, typename="sensor_msgs::msg::dds_::NavSatFix_"):
    """sensor_msgs/NavSatFix."""

    header: Header
    status: NavSatStatus
    latitude: float64
    longitude: float64
    altitude: float64
    position_covariance: array[float64, 9]
    position_covariance_type: uint8


@dataclass
class Point(Message, typename="geometry_msgs::msg::dds_::Point_"):
    """geometry_msgs/Point."""

    x: float64 = 0.0
    y: float64 = 0.0
    z: float64 = 0.0


@dataclass
class Vector3(Message, typename="geometry_msgs::msg::dds_::Vector3_"):
    """geometry_msgs/Vector3."""

    x: float64 = 0.0
    y: float64 = 0.0
    z: float64 = 0.0


@dataclass
class Quaternion(Message, typename="geometry_msgs::msg::dds_::Quaternion_"):
    """geometry_msgs/Quaternion."""

    x: float64 = 0.0
    y: float64 = 0.0
    z: float64 = 0.0
    w: float64 = 1.0


@dataclass
class Pose(Message, typename="geometry_msgs::msg::dds_::Pose_"):
    """geometry_msgs/Pose."""

    position: Point = field(default_factory=Point)
    orientation: Quaternion = field(default_factory=Quaternion)


@dataclass
class PoseWithCovariance(Message, typename="geometry_msgs::msg::dds_::PoseWithCovariance_"):
    """geometry_msgs/PoseWithCovariance."""

    pose: Pose
    covariance: array[float64, 36]


@dataclass
class PoseWithCovarianceStamped(Message, typename="geometry_msgs::msg::dds_::PoseWithCovarianceStamped_"):
    """geometry_msgs/PoseWithCovarianceStamped."""

    header: Header
    pose: PoseWithCovariance


@dataclass
class Twist(Message, typename="geometry_msgs::msg::dds_::Twist_"):
    """geometry_msgs/Twist."""

    linear: Vector3 = field(default_factory=Vector3)
    angular: Vector3 = field(default_factory=Vector3)


@dataclass
class TwistWithCovariance(Message, typename="geometry_msgs::msg::dds_::TwistWithCovariance_"):
    """geometry_msgs/TwistWithCovariance."""

    twist: Twist
    covariance: array[float64, 36]


@dataclass
class Odometry(Message, typename="nav_msgs::msg::dds_::Odometry_"):
    """nav_msgs/Odometry."""

    header: Header
    child_frame_id: str
    pose: PoseWithCovariance
    twist: TwistWithCovariance


@dataclass
class KeyValue(Message, typename="diagnostic_msgs::msg::dds_::KeyValue_"):
    """diagnostic_msgs/KeyValue."""

    key: str
    value: str


@dataclass
class DiagnosticStatus(Message, typename="diagnostic_msgs::msg::dds_::DiagnosticStatus_"):
    """diagnostic_msgs/DiagnosticStatus."""

    level: uint8
    name: str
    message: str
    hardware_id: str
    values: sequence[KeyValue]


@dataclass
class DiagnosticArray(Message, typename="diagnostic_msgs::msg::dds_::DiagnosticArray_"):
    """diagnostic_msgs/DiagnosticArray."""

    header: Header
    status: sequence[DiagnosticStatus]


@dataclass
class Transform(Message, typename="geometry_msgs::msg::dds_::Transform_"):
    """geometry_msgs/Transform."""

    translation: Vector3 = field(default_factory=Vector3)
    rotation: Quaternion = field(default_factory=Quaternion)


@dataclass
class TransformStamped(Message, typename="geometry_msgs::msg::dds_::TransformStamped_"):
    """geometry_msgs/TransformStamped."""

    header: Header
    child_frame_id: str
    transform: Transform


@dataclass
class TFMessage(Message, typename="tf2_msgs::msg::dds_::TFMessage_"):
    """tf2_msgs/TFMessage."""

    transforms: sequence[TransformStamped]
