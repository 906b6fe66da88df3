"""Live frames of a node for a sequence, with the motion of the camera by odometry."""

import math
from collections.abc import Callable, Iterator
from typing import TypeAlias

import numpy as np

from vpr_dhe.integrations.ros2.cdr import CameraImage
from vpr_dhe.integrations.ros2.latest_image import Arrival
from vpr_dhe.integrations.ros2.messages import OdometryPose
from vpr_dhe.sequences.frames import SequenceFrame
from vpr_dhe.sequences.odometry import Odometry

ReadImage: TypeAlias = tuple[Arrival, CameraImage, np.ndarray]
"""Received image, its message, and its pixels."""


class LiveFrames:
    """Frames of a sequence, and the image of the current one.

    Args:
        next_read: waits for the next image; None ends the sequence.
        odometry: returns the latest pose of the camera of an image by odometry.
    """

    def __init__(
        self, next_read: Callable[[], ReadImage | None], odometry: Callable[[CameraImage], OdometryPose | None]
    ) -> None:
        self._next_read, self._odometry = next_read, odometry
        self._before: OdometryPose | None = None

    def frames(self) -> Iterator[SequenceFrame]:
        """Frames until there is no next image."""
        while (read := self._next_read()) is not None:
            self.current = read
            arrival, message, pixels = read
            yield SequenceFrame(
                pixels, message.stamp.seconds, self._moved(message), str(message.stamp), arrival.dropped
            )

    def _moved(self, message: CameraImage) -> Odometry | None:
        before, self._before = self._before, self._odometry(message)
        return None if before is None or self._before is None else motion_between(before, self._before)


def motion_between(before: OdometryPose, after: OdometryPose) -> Odometry:
    """Motion between two poses of a camera, which looks along its x axis."""
    east, north = after.x_m - before.x_m, after.y_m - before.y_m
    sin, cos = math.sin(before.yaw_rad), math.cos(before.yaw_rad)
    forward, left = cos * east + sin * north, cos * north - sin * east
    turn = math.remainder(after.yaw_rad - before.yaw_rad, math.tau)
    return Odometry.of_displacement(forward, -left, -math.degrees(turn))
