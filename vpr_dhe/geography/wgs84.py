"""Coordinates on the WGS84 ellipsoid."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float64

from vpr_dhe.records import GeoPosition

# National Geospatial-Intelligence Agency, NGA.STND.0036 (World Geodetic System 1984), table 3.1.
SEMI_MAJOR_AXIS_M = 6_378_137.0
FLATTENING = 1 / 298.257223563
ECCENTRICITY_SQUARED = FLATTENING * (2 - FLATTENING)


def earth_centred(positions: Sequence[GeoPosition]) -> Float64[np.ndarray, "positions 3"]:
    """Convert positions to earth-centred, earth-fixed coordinates in metres, on the ellipsoid.

    Straight lines between them are shorter than distances on the ground by d^3 / 24 R^2: a micrometre at 1 km.
    """
    degrees = np.array([(position.latitude_deg, position.longitude_deg) for position in positions])
    latitude, longitude = np.radians(degrees.reshape(-1, 2)).T
    normal_m = SEMI_MAJOR_AXIS_M / np.sqrt(1 - ECCENTRICITY_SQUARED * np.sin(latitude) ** 2)
    in_plane_m = normal_m * np.cos(latitude)
    up_m = (1 - ECCENTRICITY_SQUARED) * normal_m * np.sin(latitude)
    return np.stack([in_plane_m * np.cos(longitude), in_plane_m * np.sin(longitude), up_m], axis=1)


def metres_per_degree(latitude_deg: float) -> tuple[float, float]:
    """Length in metres of a degree of longitude and of latitude, at a latitude.

    Source: the radii of curvature of the prime vertical and the meridian; Snyder, "Map projections - a working manual",
    USGS Professional Paper 1395 (1987), equations 4-18 to 4-21.
    """
    latitude = np.radians(latitude_deg)
    ratio = 1 - ECCENTRICITY_SQUARED * np.sin(latitude) ** 2
    prime_vertical_m = SEMI_MAJOR_AXIS_M / np.sqrt(ratio)
    meridian_m = prime_vertical_m * (1 - ECCENTRICITY_SQUARED) / ratio
    return float(np.radians(prime_vertical_m * np.cos(latitude))), float(np.radians(meridian_m))
