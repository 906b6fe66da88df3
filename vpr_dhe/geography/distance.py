"""Distances between positions, and planes in which they can be compared."""

import math
import re

from vpr_dhe.geography.wgs84 import earth_centred
from vpr_dhe.records import RECONSTRUCTION, GeoPosition, MetricPosition, Position

RADIUS_M = 25.0
"""Largest distance of a right answer in nearly all protocols of the field."""


_UTM_ZONE = re.compile(r"UTM (\d{1,2})([C-HJ-NP-X]?)", re.ASCII | re.IGNORECASE)


def apart(one: Position | None, other: Position | None) -> float | None:
    """Distance of two positions in metres, or in units of a reconstruction; None if it is unknown."""
    if one is None or other is None or plane_of(one) != plane_of(other):
        return None
    if isinstance(one, MetricPosition) and isinstance(other, MetricPosition):
        return math.dist((one.x_m, one.y_m), (other.x_m, other.y_m))
    assert isinstance(one, GeoPosition)
    assert isinstance(other, GeoPosition)
    return math.dist(*earth_centred([one, other]))


def distance(one: Position | None, other: Position | None) -> str | None:
    """Distance of two positions in words; None if it is unknown."""
    found = apart(one, other)
    if found is None:
        return None
    return f"{found:.1f}{unit_of(plane_of(one))} away"


def plane_of(position: Position | None) -> str:
    """Name of the plane of a position, equal for positions that can be compared.

    Latitude bands of one UTM zone and hemisphere share a plane.
    """
    if not isinstance(position, MetricPosition):
        return "degrees"
    zone = _UTM_ZONE.fullmatch(position.reference)
    if zone is None:
        return position.reference
    number, band = zone.groups()
    # Bands N to X are north of the equator, as is, by convention here, a zone without a letter.
    return f"UTM {int(number)} {'south' if band and band.upper() < 'N' else 'north'}"


def unit_of(plane: str) -> str:
    """Suffix of lengths in a plane: " m", or nothing if the unit is unknown."""
    return "" if plane == RECONSTRUCTION else " m"


def kind_of(position: Position) -> str:
    """Kind of a position's coordinates, in words."""
    if isinstance(position, GeoPosition):
        return "degrees"
    if position.reference == RECONSTRUCTION:
        return "units of a reconstruction"
    return "a UTM zone" if _UTM_ZONE.fullmatch(position.reference) else f"metres of {position.reference!r}"
