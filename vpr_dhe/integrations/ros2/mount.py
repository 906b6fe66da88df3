"""Mount of the camera on the robot: conversion of the camera's pose to that of the robot's base.

The base is assumed to be level. Axes are those of REP 103 (x ahead, y left, z up; z ahead in optical frames, which the
frames of sensor_msgs/Image are by definition).
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import TypeAlias

import numpy as np
from jaxtyping import Float64

from vpr_dhe.errors import BadInputError
from vpr_dhe.geography.plane import Plane
from vpr_dhe.integrations.ros2.messages import OdometryPose, StaticTransform
from vpr_dhe.records import GeoPosition, MetricPosition, Position

_Matrix: TypeAlias = Float64[np.ndarray, "4 4"]
# A camera within 6 degrees of the vertical has no heading.
_MIN_HORIZONTAL = 0.1


@dataclass(frozen=True)
class Mount:
    """Position and viewing direction of the camera in the frame of the base.

    Args:
        x_m: position of the camera ahead of the base.
        y_m: position of the camera to the left of the base.
        yaw_rad: viewing direction, counterclockwise from ahead; None for a camera that looks up or down.
    """

    x_m: float = 0.0
    y_m: float = 0.0
    yaw_rad: float | None = 0.0

    @classmethod
    def parse(cls, text: str) -> "Mount":
        """Read `X,Y,Z,ROLL,PITCH,YAW`, metres and radians: the camera's pose in the base, with x as viewing direction.

        Raises:
            BadInputError: if it is not six finite numbers.
        """
        try:
            x, y, z, roll, pitch, yaw = map(float, text.split(","))
            if not all(map(math.isfinite, (x, y, z, roll, pitch, yaw))):
                raise ValueError
        except ValueError as error:
            raise BadInputError(
                f"--camera-pose is {text!r}; expected X,Y,Z,ROLL,PITCH,YAW in metres and radians such as "
                "0.3,0,1.2,0,0,0"
            ) from error
        # Roll rotates about the viewing direction and does not change it.
        ahead = np.array([math.cos(pitch) * math.cos(yaw), math.cos(pitch) * math.sin(yaw), -math.sin(pitch)])
        return cls._looking(x, y, ahead)

    @classmethod
    def of_optical(cls, base_to_camera: _Matrix) -> "Mount":
        """Make the mount from the pose of the camera's optical frame, with the viewing direction as z axis."""
        x, y = base_to_camera[:2, 3].tolist()
        return cls._looking(x, y, base_to_camera[:3, 2])

    @classmethod
    def _looking(cls, x_m: float, y_m: float, ahead: Float64[np.ndarray, "3"]) -> "Mount":
        level = math.hypot(ahead[0], ahead[1]) >= _MIN_HORIZONTAL
        return cls(x_m, y_m, math.atan2(ahead[1], ahead[0]) if level else None)

    @property
    def distance_m(self) -> float:
        """Horizontal distance of the camera from the base."""
        return math.hypot(self.x_m, self.y_m)

    def base_heading_deg(self, camera_heading_deg: float | None) -> float | None:
        """Heading of the base, clockwise from north; None if it is unknown."""
        if camera_heading_deg is None or self.yaw_rad is None:
            return None
        return (camera_heading_deg + math.degrees(self.yaw_rad)) % 360

    def base_position(self, camera: Position, base_heading_deg: float | None) -> Position:
        """Position of the base; that of the camera if the heading is unknown."""
        if base_heading_deg is None or self.distance_m == 0:
            return camera
        east, north = self._lever_m(base_heading_deg)
        if isinstance(camera, GeoPosition):
            return Plane(camera).position(-east, -north)
        return MetricPosition(camera.x_m - east, camera.y_m - north, camera.reference)

    def base_covariance(
        self, covariance_m2: Float64[np.ndarray, "2 2"], base_heading_deg: float | None, heading_variance_rad2: float
    ) -> Float64[np.ndarray, "2 2"]:
        """Covariance of the base's position along east and north: camera position plus lever arm.

        With an unknown heading, the base may be anywhere on a circle around the camera.
        """
        if base_heading_deg is None:
            return covariance_m2 + np.eye(2) * self.distance_m**2 / 2
        east, north = self._lever_m(base_heading_deg)
        turned = np.array([north, -east])
        return covariance_m2 + heading_variance_rad2 * np.outer(turned, turned)

    def camera_pose(self, base: OdometryPose) -> OdometryPose:
        """Convert the pose of the base to that of the camera."""
        cos, sin = math.cos(base.yaw_rad), math.sin(base.yaw_rad)
        x, y = base.x_m + cos * self.x_m - sin * self.y_m, base.y_m + sin * self.x_m + cos * self.y_m
        return replace(base, x_m=x, y_m=y, yaw_rad=base.yaw_rad + (self.yaw_rad or 0.0))

    def _lever_m(self, base_heading_deg: float) -> tuple[float, float]:
        """Metres east and north from the base to the camera."""
        sin, cos = math.sin(math.radians(base_heading_deg)), math.cos(math.radians(base_heading_deg))
        return sin * self.x_m - cos * self.y_m, cos * self.x_m + sin * self.y_m


class StaticTransforms:
    """Tree of the latest static transforms of a robot, from `/tf_static`."""

    def __init__(self) -> None:
        self._parents: dict[str, tuple[str, _Matrix]] = {}

    def update(self, transforms: Iterable[StaticTransform]) -> None:
        """Add transforms, replacing those of the same frames."""
        for one in transforms:
            self._parents[_bare(one.child_frame)] = (_bare(one.frame), _matrix(one))

    def between(self, frame: str, other: str) -> _Matrix | None:
        """Pose of `other` in `frame`; None if no transforms connect them."""
        to_frame, to_other = self._ancestors(_bare(frame)), self._ancestors(_bare(other))
        shared = next((one for one in to_frame if one in to_other), None)
        return None if shared is None else np.linalg.inv(to_frame[shared]) @ to_other[shared]

    def _ancestors(self, frame: str) -> dict[str, _Matrix]:
        """Pose of the frame in itself and in each frame above it, the nearest first."""
        found = {frame: np.eye(4)}
        pose, above = np.eye(4), frame
        while above in self._parents:
            above, step = self._parents[above]
            if above in found:  # a cycle
                break
            pose = step @ pose
            found[above] = pose
        return found


def _bare(frame: str) -> str:
    """Name of a frame; those of ROS 1 may begin with a slash."""
    return frame.removeprefix("/")


def _matrix(transform: StaticTransform) -> _Matrix:
    x, y, z, w = np.array(transform.quaternion_xyzw) / (math.hypot(*transform.quaternion_xyzw) or 1.0)
    matrix = np.eye(4)
    matrix[:3, :3] = [
        [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
        [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
        [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)],
    ]
    matrix[:3, 3] = transform.translation_m
    return matrix
