"""Coordinates of one position in degrees and in UTM, for output."""

from typing import NamedTuple

from vpr_dhe.geography.utm import band_letter, from_degrees, likely_readings, own_zone, zone_name
from vpr_dhe.records import GeoPosition, MetricPosition, Position


class Coordinates(NamedTuple):
    """Coordinates of a position, named and ordered as in output; None where they cannot be computed.

    Args:
        latitude: in degrees, WGS84.
        longitude: in degrees, WGS84.
        easting: in metres, in `zone`.
        northing: in metres, in `zone`.
        zone: UTM zone and letter of the latitude band, such as "31U".
    """

    latitude: float | None = None
    longitude: float | None = None
    easting: float | None = None
    northing: float | None = None
    zone: str | None = None


def coordinates_of(position: Position | None) -> Coordinates:
    """Compute the coordinates of a position in both systems; none in local frames and reconstructions.

    Positions in UTM keep their zone. They have no degrees if the zone is unknown, or if it has no letter and the
    northing is valid in both hemispheres. Positions in degrees have no UTM beyond 80 degrees south and 84 north.
    """
    if isinstance(position, GeoPosition):
        return _from_degrees(position)
    return Coordinates() if position is None else _from_metres(position)


def _from_degrees(position: GeoPosition) -> Coordinates:
    degrees = position.latitude_deg, position.longitude_deg
    zone = own_zone(position)
    if zone is None:
        return Coordinates(*degrees)
    return Coordinates(*degrees, *from_degrees(position, zone), f"{zone.number:02d}{band_letter(position)}")


def _from_metres(position: MetricPosition) -> Coordinates:
    name = zone_name(position.reference)
    if name is None:
        return Coordinates()
    found = likely_readings(position)
    metres = position.x_m, position.y_m
    if len(found) != 1:
        return Coordinates(None, None, *metres, name or None)
    # The letter is computed from the latitude if the name has none or an ambiguous one.
    letter = band_letter(found[0]) or ""
    zone = name if name[-1] not in "0123456789S" else f"{name[:2]}{letter}"
    return Coordinates(found[0].latitude_deg, found[0].longitude_deg, *metres, zone)


def geo_uri(position: Position | None) -> str | None:
    """geo: URI of a position (RFC 5870), to a centimetre; None if its degrees cannot be computed."""
    found = coordinates_of(position)
    return None if found.latitude is None else f"geo:{found.latitude:.7f},{found.longitude:.7f}"
