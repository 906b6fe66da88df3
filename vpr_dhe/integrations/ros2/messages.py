"""Messages that the node receives and publishes, independent of the transport."""

from dataclasses import dataclass, field
from enum import IntEnum
from typing import Protocol, runtime_checkable

from jaxtyping import Float64
from numpy import ndarray

from vpr_dhe.integrations.ros2.cdr import CompressedImage, Stamp
from vpr_dhe.records import GeoPosition

UNKNOWN_VARIANCE = 1e6
"""Variance of unknown values in square metres or radians, too large to affect a filter."""


@dataclass(frozen=True)
class Text:
    """Message std_msgs/String."""

    text: str


@dataclass(frozen=True)
class Fix:
    """Message sensor_msgs/NavSatFix; the covariance is in square metres, east then north."""

    stamp: Stamp
    frame_id: str
    position: GeoPosition
    covariance_m2: Float64[ndarray, "2 2"]


@dataclass(frozen=True)
class MapPose:
    """Message geometry_msgs/PoseWithCovarianceStamped.

    Args:
        stamp: stamp of the image.
        frame_id: frame of the map.
        x_m: coordinate along its x axis.
        y_m: coordinate along its y axis.
        covariance_m2: covariance of x and y.
        yaw_rad: viewing direction, counterclockwise from the x axis; None if it is unknown.
        yaw_variance_rad2: variance of the yaw.
    """

    stamp: Stamp
    frame_id: str
    x_m: float
    y_m: float
    covariance_m2: Float64[ndarray, "2 2"]
    yaw_rad: float | None
    yaw_variance_rad2: float = UNKNOWN_VARIANCE


class Level(IntEnum):
    """Level of a diagnostic status, with the values of diagnostic_msgs/DiagnosticStatus."""

    OK = 0
    WARN = 1
    ERROR = 2
    STALE = 3


@dataclass(frozen=True)
class Diagnostics:
    """Message diagnostic_msgs/DiagnosticArray of one status."""

    stamp: Stamp
    level: Level
    message: str
    values: dict[str, str] = field(default_factory=dict)


Outgoing = Text | Fix | MapPose | Diagnostics | CompressedImage


@dataclass(frozen=True)
class OdometryPose:
    """Pose of a nav_msgs/Odometry in the plane; the yaw is counterclockwise from its x axis."""

    stamp: Stamp
    x_m: float
    y_m: float
    yaw_rad: float


@dataclass(frozen=True)
class StaticTransform:
    """Message geometry_msgs/TransformStamped of a static transform: the pose of `child_frame` in `frame`.

    Args:
        frame: name of the parent.
        child_frame: name of the child.
        translation_m: x, y, z.
        quaternion_xyzw: rotation.
    """

    frame: str
    child_frame: str
    translation_m: tuple[float, float, float]
    quaternion_xyzw: tuple[float, float, float, float]


@runtime_checkable
class Publisher(Protocol):
    """Publisher of one topic."""

    def publish(self, message: Outgoing) -> None:
        """Publish a message."""
        ...

    @property
    def has_subscribers(self) -> bool:
        """Whether the topic has subscribers."""
        ...
