"""Distances between positions, and which positions can be compared."""

import math
import re

from vpr_dhe.geography.wgs84 import earth_centred
from vpr_dhe.records import RECONSTRUCTION, GeoPosition, MetricPosition, Position

RADIUS_M = 25.0
"""The distance up to which an image shows the query's place, in nearly all of the field's protocols."""


_UTM_ZONE = re.compile(r"UTM (\d{1,2})([C-HJ-NP-X]?)", re.ASCII | re.IGNORECASE)


def apart(one: Position | None, other: Position | None) -> float | None:
    """How far apart two positions are, in metres or in the units of their frame; None where that is not known."""
    if one is None or other is None or plane_of(one) != plane_of(other):
        return None
    if isinstance(one, MetricPosition) and isinstance(other, MetricPosition):
        return math.dist((one.x_m, one.y_m), (other.x_m, other.y_m))
    assert isinstance(one, GeoPosition)
    assert isinstance(other, GeoPosition)
    return math.dist(*earth_centred([one, other]))


def distance(one: Position | None, other: Position | None) -> str | None:
    """How far apart two positions are, in words; None where that is not known."""
    found = apart(one, other)
    if found is None:
        return None
    return f"{found:.1f}{unit_of(plane_of(one))} away"


def plane_of(position: Position | None) -> str:
    """What positions must share to be compared; bands of latitude of one UTM zone and hemisphere share their plane."""
    if not isinstance(position, MetricPosition):
        return "degrees"
    zone = _UTM_ZONE.fullmatch(position.reference)
    if zone is None:
        return position.reference
    number, band = zone.groups()
    # Bands N to X lie north of the equator; a zone without a letter is taken to be there.
    return f"UTM {int(number)} {'south' if band and band.upper() < 'N' else 'north'}"


def unit_of(plane: str) -> str:
    """What follows a length in a plane, in words: nothing where the unit may be any."""
    return "" if plane == RECONSTRUCTION else " m"


def kind_of(position: Position) -> str:
    """Kind of coordinates of a position, in words."""
    if isinstance(position, GeoPosition):
        return "degrees"
    if position.reference == RECONSTRUCTION:
        return "units of a reconstruction"
    return "a UTM zone" if _UTM_ZONE.fullmatch(position.reference) else f"metres of {position.reference!r}"
