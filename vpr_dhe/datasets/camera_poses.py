"""Camera poses of structure from motion: (q, t) maps a world point p to R(q) p + t."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64


@dataclass(frozen=True)
class Pose:
    """Rotation and translation from one frame, such as the world, to another, such as the camera."""

    rotation: Float64[np.ndarray, "3 3"]
    translation: Float64[np.ndarray, "3"]

    @property
    def centre(self) -> tuple[float, float, float]:
        """Origin of the second frame in the first, such as the camera position in the world."""
        x, y, z = (-self.rotation.T @ self.translation).tolist()
        return x, y, z

    def after(self, first: "Pose") -> "Pose":
        """Compose poses: `first`, then this one."""
        return Pose(self.rotation @ first.rotation, self.rotation @ first.translation + self.translation)


def pose_of(numbers: Sequence[float]) -> Pose:
    """Make a pose from seven numbers: a quaternion (w, x, y, z) of any length, then a translation (x, y, z).

    Raises:
        ValueError: if a number is not finite or the quaternion is zero; the message says what was expected.
    """
    if not all(math.isfinite(number) for number in numbers):
        raise ValueError("finite numbers")
    quaternion = np.array(numbers[:4])
    length = math.hypot(*numbers[:4])
    if not 0 < length < math.inf:
        raise ValueError("a quaternion other than zero")
    return Pose(_rotation(quaternion / length), np.array(numbers[4:]))


def _rotation(quaternion: Float64[np.ndarray, "4"]) -> Float64[np.ndarray, "3 3"]:
    """Rotation of a unit quaternion, by the formula of Rodrigues: I + 2 w K + 2 K^2, with K p = (x, y, z) x p."""
    w, x, y, z = quaternion
    cross = np.array([[0.0, -z, y], [z, 0.0, -x], [-y, x, 0.0]])
    return np.eye(3) + 2 * w * cross + 2 * cross @ cross
