"""Pinhole camera of the town."""

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from jaxtyping import Float64

from vpr_dhe.errors import BadInputError
from vpr_dhe.synthetic_town.arrays import Matrix, Vector, read_only


@dataclass(frozen=True)
class Camera:
    """Pinhole camera: position in metres, heading clockwise from north, pitch upwards, focal length in pixels.

    Raises:
        BadInputError: if a size or the focal length is not positive, or a number is not finite.
    """

    x_m: float
    y_m: float
    height_m: float = 1.8
    heading_deg: float = 0.0
    pitch_deg: float = 0.0
    width_px: int = 320
    height_px: int = 240
    focal_px: float = 230.0

    def __post_init__(self) -> None:
        numbers = (self.x_m, self.y_m, self.height_m, self.heading_deg, self.pitch_deg, self.focal_px)
        if not all(math.isfinite(number) for number in numbers):
            raise BadInputError(f"a camera needs finite numbers, found {self}")
        if min(self.width_px, self.height_px) < 1 or self.focal_px <= 0:
            raise BadInputError(f"a camera needs a positive size and focal length, found {self}")

    @cached_property
    def centre_m(self) -> Vector:
        """Position of the camera: (x east, y north, z up), metres."""
        return read_only(np.array([self.x_m, self.y_m, self.height_m], np.float64))

    @cached_property
    def rotation(self) -> Matrix:
        """Rotation from world to camera; rows are the image's right, its down and the viewing direction."""
        heading, pitch = math.radians(self.heading_deg), math.radians(self.pitch_deg)
        east, north, rise, level = math.sin(heading), math.cos(heading), math.sin(pitch), math.cos(pitch)
        right, down = [north, -east, 0.0], [east * rise, north * rise, -level]
        return read_only(np.array([right, down, [east * level, north * level, rise]]))

    @cached_property
    def intrinsics(self) -> Matrix:
        """Calibration matrix, with the principal point in the middle of the image."""
        middle_x, middle_y = (self.width_px - 1) / 2, (self.height_px - 1) / 2
        return read_only(np.array([[self.focal_px, 0, middle_x], [0, self.focal_px, middle_y], [0, 0, 1]], np.float64))

    @cached_property
    def projection(self) -> Float64[np.ndarray, "3 4"]:
        """Matrix from world (x, y, z, 1) in metres to homogeneous pixels, whose third component is the depth."""
        rotation = self.rotation
        return read_only(self.intrinsics @ np.column_stack([rotation, -rotation @ self.centre_m]))
