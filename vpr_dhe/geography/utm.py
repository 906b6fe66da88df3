"""Universal Transverse Mercator: zones of positions, and conversion to and from degrees.

The projection is Krueger's series to the fourth order in the third flattening, accurate to a micrometre within a zone
and a millimetre far beyond it. Source: Karney, "Transverse Mercator with an accuracy of a few nanometers", Journal of
Geodesy 85 (2011), equations 7 to 36.
"""

import re
from collections.abc import Iterable
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from jaxtyping import Float64

from vpr_dhe.geography.wgs84 import ECCENTRICITY_SQUARED, FLATTENING, SEMI_MAJOR_AXIS_M, earth_centred
from vpr_dhe.records import GeoPosition, MetricPosition, Position

_REFERENCE = re.compile(r"UTM (\d{1,2})([C-HJ-NP-X]?)", re.ASCII | re.IGNORECASE)
_BANDS = "CDEFGHJKLMNPQRSTUVWX"  # of 8 degrees each from 80 degrees south; the last one has 12
_SOUTH_END_DEG, _NORTH_END_DEG = -80.0, 84.0
# Wider zones in Norway and Svalbard by band: first and last longitude, and number (NGA.SIG.0012, section 7-2).
_EXCEPTIONS = {"V": ((3.0, 12.0, 32),), "X": ((0.0, 9.0, 31), (9.0, 21.0, 33), (21.0, 33.0, 35), (33.0, 42.0, 37))}
_SCALE = 0.9996
_FALSE_EASTING_M = 500_000.0
_FALSE_NORTHING_M = 10_000_000.0  # in the south
# UTM ends at 84 degrees north and 80 degrees south; a margin for images near the border.
_MAX_NORTH_M = 9_350_000.0
_MIN_SOUTH_M = 1_100_000.0
# Longitudes are clamped to this distance; the projection is infinite at 90 degrees from its meridian.
_MAX_OFFSET_DEG = 80.0

_N = FLATTENING / (2 - FLATTENING)
_RECTIFYING_RADIUS_M = SEMI_MAJOR_AXIS_M / (1 + _N) * (1 + _N**2 / 4 + _N**4 / 64)
_FORWARD = (
    _N / 2 - 2 * _N**2 / 3 + 5 * _N**3 / 16 + 41 * _N**4 / 180,
    13 * _N**2 / 48 - 3 * _N**3 / 5 + 557 * _N**4 / 1440,
    61 * _N**3 / 240 - 103 * _N**4 / 140,
    49561 * _N**4 / 161280,
)
_INVERSE = (
    _N / 2 - 2 * _N**2 / 3 + 37 * _N**3 / 96 - _N**4 / 360,
    _N**2 / 48 + _N**3 / 15 - 437 * _N**4 / 1440,
    17 * _N**3 / 480 - 37 * _N**4 / 840,
    4397 * _N**4 / 161280,
)


class Zone(NamedTuple):
    """Zone of UTM from 1 to 60, in one hemisphere."""

    number: int
    south: bool

    @property
    def meridian_deg(self) -> float:
        """Longitude of the central meridian."""
        return 6.0 * self.number - 183


@lru_cache(maxsize=1024)
def _parsed(reference: str) -> tuple[int, str] | None:
    found = _REFERENCE.fullmatch(reference)
    return (int(found[1]), found[2].upper()) if found and 1 <= int(found[1]) <= 60 else None


def is_utm(reference: str) -> bool:
    """Whether the reference of a metric position is a zone of UTM."""
    return _parsed(reference) is not None


def zones_of(position: Position) -> tuple[Zone, ...]:
    """Possible zones of a position, the most likely first; none unless it is in UTM.

    The letter of the latitude band gives the hemisphere. Without a letter, or with an S, which is a northern band but
    often means "south", both are possible unless the northing is invalid in one.
    """
    parsed = _parsed(position.reference) if isinstance(position, MetricPosition) else None
    if parsed is None:
        return ()
    assert isinstance(position, MetricPosition)
    number, band = parsed
    either = not band or band == "S"
    north = (either and position.y_m <= _MAX_NORTH_M) or band > "S" or "N" <= band < "S"
    south = (either and position.y_m >= _MIN_SOUTH_M) or "" < band < "N"
    return tuple(Zone(number, hemisphere) for hemisphere, likely in ((False, north), (True, south)) if likely)


def zone_name(reference: str) -> str | None:
    """Zone of a reference: two digits and a letter if it has one; empty for plain "UTM", None if not in UTM."""
    parsed = _parsed(reference)
    if parsed is not None:
        return f"{parsed[0]:02d}{parsed[1]}"
    return "" if reference.upper() == "UTM" else None


def band_letter(position: GeoPosition) -> str | None:
    """Letter of the latitude band; None beyond 80 degrees south and 84 north, where UTM ends."""
    if not _SOUTH_END_DEG <= position.latitude_deg <= _NORTH_END_DEG:
        return None
    # Rounding must not move a position just south of the equator across it.
    last = _BANDS.index("M") if position.latitude_deg < 0 else len(_BANDS) - 1
    return _BANDS[min(last, int((position.latitude_deg - _SOUTH_END_DEG) // 8))]


def own_zone(position: GeoPosition) -> Zone | None:
    """Zone of a position, with the exceptions of Norway and Svalbard; None outside of UTM."""
    band, longitude_deg = band_letter(position), (position.longitude_deg + 180) % 360 - 180
    if band is None:
        return None
    for west_deg, east_deg, number in _EXCEPTIONS.get(band, ()):
        if west_deg <= longitude_deg < east_deg:
            return Zone(number, south=False)
    return Zone(int((longitude_deg + 180) // 6) + 1, south=position.latitude_deg < 0)


def likely_readings(position: MetricPosition) -> tuple[GeoPosition, ...]:
    """Possible degrees of a single position; for an S, the northern one if it lies in band S, else the southern one."""
    found = readings(position)
    parsed = _parsed(position.reference)
    if len(found) < 2 or parsed is None or parsed[1] != "S":
        return found
    north, south = found
    return (north,) if band_letter(north) == "S" else (south,)


def readings(position: Position) -> tuple[GeoPosition, ...]:
    """Possible degrees of a position, one for each of its zones; none if it is not on Earth."""
    if isinstance(position, GeoPosition):
        return (position,)
    return tuple(to_degrees(position.x_m, position.y_m, zone) for zone in zones_of(position))


def to_degrees(east_m: float, north_m: float, zone: Zone) -> GeoPosition:
    """Convert easting and northing."""
    return all_to_degrees(np.array([[east_m, north_m]]), zone)[0]


def all_to_degrees(points_m: Float64[np.ndarray, "points 2"], zone: Zone) -> list[GeoPosition]:
    """Convert eastings and northings of one zone."""
    east_m, north_m = points_m.T
    along = north_m - (_FALSE_NORTHING_M if zone.south else 0.0)
    point = (along + 1j * (east_m - _FALSE_EASTING_M)) / (_SCALE * _RECTIFYING_RADIUS_M)
    point = point - sum(factor * np.sin(2 * order * point) for order, factor in enumerate(_INVERSE, 1))
    conformal = np.sin(point.real) / np.hypot(np.sinh(point.imag), np.cos(point.real))
    longitudes = zone.meridian_deg + np.degrees(np.arctan2(np.sinh(point.imag), np.cos(point.real)))
    latitudes = np.degrees(np.arctan(_tangent_of_latitude(conformal)))
    longitudes = (longitudes + 180) % 360 - 180
    return [GeoPosition(*pair) for pair in zip(latitudes.tolist(), longitudes.tolist(), strict=True)]


def from_degrees(position: GeoPosition, zone: Zone) -> tuple[float, float]:
    """Convert a position to easting and northing in any zone."""
    tangent = np.tan(np.radians(np.array([position.latitude_deg])))
    offset_deg = (position.longitude_deg - zone.meridian_deg + 180) % 360 - 180
    offset = np.radians(np.clip(offset_deg, -_MAX_OFFSET_DEG, _MAX_OFFSET_DEG))
    conformal = _conformal(tangent)
    along = np.arctan2(conformal, np.cos(offset))
    across = np.arcsinh(np.sin(offset) / np.hypot(conformal, np.cos(offset)))
    point = along + 1j * across
    point = point + sum(factor * np.sin(2 * order * point) for order, factor in enumerate(_FORWARD, 1))
    east_m, north_m = point.imag[0] * _SCALE * _RECTIFYING_RADIUS_M, point.real[0] * _SCALE * _RECTIFYING_RADIUS_M
    return float(east_m) + _FALSE_EASTING_M, float(north_m) + (_FALSE_NORTHING_M if zone.south else 0.0)


def _conformal(tangent: Float64[np.ndarray, " points"]) -> Float64[np.ndarray, " points"]:
    """Tangent of the conformal latitude from that of the latitude (equations 7 to 9)."""
    eccentricity = np.sqrt(ECCENTRICITY_SQUARED)
    sine = np.sinh(eccentricity * np.arctanh(eccentricity * tangent / np.hypot(1, tangent)))
    return tangent * np.hypot(1, sine) - sine * np.hypot(1, tangent)


def _tangent_of_latitude(conformal: Float64[np.ndarray, " points"]) -> Float64[np.ndarray, " points"]:
    """Tangent of the latitude from that of the conformal latitude, by Newton's method (equations 19 to 21)."""
    tangent = conformal
    for _ in range(5):
        found = _conformal(tangent)
        slope = (1 + (1 - ECCENTRICITY_SQUARED) * tangent**2) / ((1 - ECCENTRICITY_SQUARED) * np.hypot(1, tangent))
        tangent = tangent + (conformal - found) / np.hypot(1, found) * slope
    return tangent


def nearest(candidates: Iterable[GeoPosition], centre: Float64[np.ndarray, "3"]) -> GeoPosition:
    """Choose the position nearest to an earth-centred point."""
    known = list(candidates)
    return known[int(np.linalg.norm(earth_centred(known) - centre, axis=1).argmin())]
