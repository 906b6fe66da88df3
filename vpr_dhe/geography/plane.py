"""Conversion between positions and metres in a plane."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64

from vpr_dhe.errors import BadInputError
from vpr_dhe.geography.distance import plane_of
from vpr_dhe.geography.wgs84 import metres_per_degree
from vpr_dhe.records import GeoPosition, MetricPosition, Position


@dataclass(frozen=True)
class Plane:
    """Plane of a metric position, or tangent plane of the ellipsoid at a position in degrees.

    Degrees are converted by the radii of curvature at `origin`, which is accurate within some hundred kilometres.
    """

    origin: Position

    @classmethod
    def around(cls, positions: Iterable[Position]) -> "Plane":
        """Make the plane of some positions.

        Raises:
            BadInputError: if two of them cannot be compared.
        """
        known = list(positions)
        names = sorted({plane_of(position) for position in known})
        if len(names) != 1:
            found = " and ".join(names) or "no positions"
            raise BadInputError(f"positions in {found} cannot be compared; keep images of one kind in an index")
        return cls(known[len(known) // 2])

    def metres(self, positions: Sequence[Position | None]) -> Float64[np.ndarray, "positions 2"]:
        """Convert to metres east and north, relative to the origin if positions are in degrees; NaN if unknown."""
        return np.array([self._metres(position) for position in positions], np.float64).reshape(-1, 2)

    def _metres(self, position: Position | None) -> tuple[float, float]:
        if isinstance(position, MetricPosition):
            return position.x_m, position.y_m
        if position is None:
            return np.nan, np.nan
        assert isinstance(self.origin, GeoPosition)
        east, north = metres_per_degree(self.origin.latitude_deg)
        # The short way round, also across 180 degrees.
        apart_deg = (position.longitude_deg - self.origin.longitude_deg + 180) % 360 - 180
        return east * apart_deg, north * (position.latitude_deg - self.origin.latitude_deg)

    def position(self, east_m: float, north_m: float) -> Position:
        """Convert a point of the plane to a position of the same kind as the origin."""
        if isinstance(self.origin, MetricPosition):
            return MetricPosition(east_m, north_m, self.origin.reference)
        east, north = metres_per_degree(self.origin.latitude_deg)
        longitude_deg = (self.origin.longitude_deg + east_m / east + 180) % 360 - 180
        return GeoPosition(self.origin.latitude_deg + north_m / north, longitude_deg)
