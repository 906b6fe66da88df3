"""Conversion of positions in degrees or UTM to the map frame of a robot."""

import math
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64

from vpr_dhe.errors import BadInputError
from vpr_dhe.geography.distance import EARTH, reference_frame_of
from vpr_dhe.geography.plane import Plane
from vpr_dhe.records import RECONSTRUCTION, GeoPosition, Near, Position


@dataclass(frozen=True)
class MapFrame:
    """Frame of a map: its origin on Earth, and the direction of its x axis, clockwise from north.

    The plane is tangent to the ellipsoid, and accurate within some hundred kilometres. Without an origin, coordinates
    are the metres of the index, and x points east.
    """

    origin: GeoPosition | None = None
    x_heading_deg: float = 90.0

    @classmethod
    def parse(cls, text: str | None) -> "MapFrame":
        """Read `LAT,LON` or `LAT,LON,HEADING`; None is the frame of the index.

        Raises:
            BadInputError: if it is neither, or a number is out of range.
        """
        if text is None:
            return cls()
        try:
            latitude, longitude, *heading = map(float, text.split(","))
            [x_heading] = heading or [cls.x_heading_deg]
        except ValueError as error:
            raise BadInputError(
                f"--map-origin is {text!r}; expected LAT,LON,HEADING in degrees such as 49.23,7.01,90"
            ) from error
        origin = GeoPosition(latitude, longitude)
        Near(origin, 1.0)  # raises if a number is out of range
        if not math.isfinite(x_heading):
            raise BadInputError(f"--map-origin has the heading {x_heading}; expected degrees clockwise from north")
        return cls(origin, x_heading)

    def metres(self, position: Position) -> tuple[float, float] | None:
        """Convert a position to x and y; None if it cannot be converted, such as degrees without an origin."""
        if self.origin is None:
            # A reconstruction has its own axes and scale.
            if isinstance(position, GeoPosition) or position.reference == RECONSTRUCTION:
                return None
            return position.x_m, position.y_m
        if reference_frame_of(position) != EARTH:
            return None
        x, y = self._rotation @ Plane(self.origin).metres([position])[0]
        return float(x), float(y)

    def covariance(self, covariance_m2: Float64[np.ndarray, "2 2"]) -> Float64[np.ndarray, "2 2"]:
        """Rotate a covariance from east and north to x and y."""
        return self._rotation @ covariance_m2 @ self._rotation.T

    def yaw_rad(self, heading_deg: float) -> float:
        """Angle of a heading from the x axis, counterclockwise, from -pi to pi."""
        return math.remainder(math.radians(self.x_heading_deg - heading_deg), math.tau)

    @property
    def _rotation(self) -> Float64[np.ndarray, "2 2"]:
        """Rotation from east and north to x and y, with y to the left of x."""
        ahead = math.radians(self.x_heading_deg)
        sin, cos = math.sin(ahead), math.cos(ahead)
        return np.array([[sin, cos], [-cos, sin]])
