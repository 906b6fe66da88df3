"""Flat surfaces of the town."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from jaxtyping import Float64

from vpr_dhe.synthetic_town.arrays import Vector, read_only
from vpr_dhe.synthetic_town.plans import Plan


@dataclass(frozen=True, eq=False)
class Facade:
    """Flat surface of the town: a convex outline in a plane, with the plan of its texture.

    `origin_m` is the texture's lower left corner, `right` and `up` are unit vectors along the texture, as seen from
    outside; `outline_m` holds the corners as (metres along right, metres along up). `index` is the number within the
    town; `building` is -1 for the ground.
    """

    index: int
    building: int
    origin_m: Vector
    right: Vector
    up: Vector
    outline_m: Float64[np.ndarray, "_corners 2"]
    plan: Plan

    @cached_property
    def width_m(self) -> float:
        """Extent of the outline along `right`, metres."""
        return float(self.outline_m[:, 0].max())

    @cached_property
    def height_m(self) -> float:
        """Extent of the outline along `up`, metres."""
        return float(self.outline_m[:, 1].max())

    @cached_property
    def normal(self) -> Vector:
        """Unit vector out of the visible side."""
        return read_only(np.cross(self.right, self.up))

    @cached_property
    def plane_to_world(self) -> Float64[np.ndarray, "4 3"]:
        """Matrix from (metres along right, metres along up, 1) to homogeneous world coordinates."""
        metric = np.column_stack([self.right, self.up, self.origin_m])
        return read_only(np.vstack([metric, [0.0, 0.0, 1.0]]))

    def points(self, plane_m: Float64[np.ndarray, "points 2"]) -> Float64[np.ndarray, "points 3"]:
        """Convert points (metres along right, metres along up) to world positions in metres."""
        return self.origin_m + plane_m @ np.stack([self.right, self.up])
