"""Conversion between positions and metres in a plane."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64

from vpr_dhe.errors import BadInputError
from vpr_dhe.geography.distance import reference_frame_of
from vpr_dhe.geography.utm import Zone, from_degrees, nearest, readings, to_degrees, zones_of
from vpr_dhe.geography.wgs84 import earth_centred, metres_per_degree
from vpr_dhe.records import GeoPosition, MetricPosition, Position


@dataclass(frozen=True)
class Plane:
    """Plane of a metric position, or tangent plane of the ellipsoid at a position in degrees.

    The plane of a UTM zone extends beyond its borders: positions of other zones, and in degrees, are projected to it;
    the scale error is below 1 % up to 10 degrees of longitude away. In the tangent plane, degrees are converted by the
    radii of curvature at `origin`, which is accurate within some hundred kilometres.

    Args:
        origin: a position in the plane.
        zone: zone of the origin; None unless it is in UTM.
    """

    origin: Position
    zone: Zone | None = None

    @classmethod
    def around(cls, positions: Iterable[Position], origin: Position | None = None) -> "Plane":
        """Make the plane of positions, by default with the middle of the list as origin.

        If the hemisphere of the origin is unknown, the one that brings the others nearest to it is chosen.

        Raises:
            BadInputError: if two of them cannot be compared.
        """
        known = list(positions)
        frames = sorted({reference_frame_of(position) for position in known})
        if len(frames) != 1:
            found = " and ".join(frames) or "no positions"
            raise BadInputError(f"positions in {found} cannot be compared; keep images of one kind in an index")
        origin = known[len(known) // 2] if origin is None else origin
        planes = [cls(origin, zone) for zone in zones_of(origin)] or [cls(origin)]
        return min(planes, key=lambda plane: plane.extent_m(known)) if len(planes) > 1 else planes[0]

    def extent_m(self, positions: Sequence[Position]) -> float:
        """Mean distance of positions from the origin."""
        return float(np.linalg.norm(self.metres(positions) - self.metres([self.origin]), axis=1).mean())

    def metres(self, positions: Sequence[Position | None]) -> Float64[np.ndarray, "positions 2"]:
        """Convert to metres east and north, relative to the origin if that is in degrees.

        Unknown positions and positions that cannot be compared with the origin give NaN.
        """
        return np.array([self._metres(position) for position in positions], np.float64).reshape(-1, 2)

    def _metres(self, position: Position | None) -> tuple[float, float]:
        if position is None or reference_frame_of(position) != reference_frame_of(self.origin):
            return np.nan, np.nan
        if isinstance(position, MetricPosition) and (
            self.zone in zones_of(position) or (self.zone is None and isinstance(self.origin, MetricPosition))
        ):
            return position.x_m, position.y_m
        found = nearest(readings(position), earth_centred([self._origin_deg])[0])
        if self.zone is not None:
            return from_degrees(found, self.zone)
        east, north = metres_per_degree(self._origin_deg.latitude_deg)
        # Along the shorter arc, also across 180 degrees.
        apart_deg = (found.longitude_deg - self._origin_deg.longitude_deg + 180) % 360 - 180
        return east * apart_deg, north * (found.latitude_deg - self._origin_deg.latitude_deg)

    @property
    def _origin_deg(self) -> GeoPosition:
        if isinstance(self.origin, GeoPosition):
            return self.origin
        assert self.zone is not None
        return to_degrees(self.origin.x_m, self.origin.y_m, self.zone)

    def position(self, east_m: float, north_m: float) -> Position:
        """Convert a point of the plane to a position of the same kind as the origin."""
        if isinstance(self.origin, MetricPosition):
            return MetricPosition(east_m, north_m, self.origin.reference)
        east, north = metres_per_degree(self.origin.latitude_deg)
        longitude_deg = (self.origin.longitude_deg + east_m / east + 180) % 360 - 180
        return GeoPosition(self.origin.latitude_deg + north_m / north, longitude_deg)
