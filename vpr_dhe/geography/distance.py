"""Distances between positions, and reference frames in which they can be compared."""

import math
from itertools import product

from vpr_dhe.geography.utm import is_utm, readings, zones_of
from vpr_dhe.geography.wgs84 import earth_centred
from vpr_dhe.records import RECONSTRUCTION, GeoPosition, MetricPosition, Position

RADIUS_M = 25.0
"""Radius of positives in nearly all VPR protocols."""

EARTH = "WGS84"
"""Common frame of positions in degrees and in all UTM zones."""


def apart(one: Position | None, other: Position | None) -> float | None:
    """Distance between two positions in metres, or in units of a reconstruction; None if it is unknown.

    Within one UTM zone, the distance is planar, as in VPR protocols; otherwise on Earth it is along the straight line,
    which at such distances equals the distance on the ground.
    """
    if one is None or other is None or reference_frame_of(one) != reference_frame_of(other):
        return None
    one_plane = reference_frame_of(one) != EARTH or set(zones_of(one)) & set(zones_of(other))
    if one_plane and isinstance(one, MetricPosition) and isinstance(other, MetricPosition):
        return math.dist((one.x_m, one.y_m), (other.x_m, other.y_m))
    return min(math.dist(*earth_centred(pair)) for pair in product(readings(one), readings(other)))


def distance(one: Position | None, other: Position | None) -> str | None:
    """Format the distance between two positions; None if it is unknown."""
    found = apart(one, other)
    if found is None:
        return None
    return f"{found:.1f}{unit_of(reference_frame_of(one))} away"


def reference_frame_of(position: Position | None) -> str:
    """Reference frame of a position, equal for positions that can be compared: EARTH, or a metric reference."""
    if not isinstance(position, MetricPosition) or is_utm(position.reference):
        return EARTH
    return position.reference


def unit_of(reference_frame: str) -> str:
    """Suffix of lengths in a reference frame: " m", or nothing if the unit is unknown."""
    return "" if reference_frame == RECONSTRUCTION else " m"


def kind_of(position: Position) -> str:
    """Kind of a position's coordinates, in words."""
    if isinstance(position, GeoPosition):
        return "degrees"
    if position.reference == RECONSTRUCTION:
        return "units of a reconstruction"
    return "a UTM zone" if is_utm(position.reference) else f"metres of {position.reference!r}"
