"""Positions as text, and their coordinates as cells of a table."""

from vpr_dhe.geography.coordinates import coordinates_of
from vpr_dhe.geography.distance import EARTH, reference_frame_of
from vpr_dhe.records import GeoPosition, Position


def position_text(position: Position | None) -> str:
    """Readable position: labelled coordinates, the latitude first, and their reference."""
    if position is None:
        return "-"
    x, y = axes_of(position)
    if isinstance(position, GeoPosition):
        return f"latitude {y}, longitude {x}"
    is_utm = reference_frame_of(position) == EARTH or position.reference == "UTM"
    labels = ("easting", "northing") if is_utm else ("x", "y")
    return f"{labels[0]} {x}, {labels[1]} {y} ({position.reference})"


def axes_of(position: Position | None) -> tuple[str, str]:
    """Coordinates in the order of the axes: x (east, or longitude), then y."""
    if position is None:
        return "", ""
    if isinstance(position, GeoPosition):
        return f"{position.longitude_deg:.7f}", f"{position.latitude_deg:.7f}"
    return f"{position.x_m:.2f}", f"{position.y_m:.2f}"


def coordinate_cells(position: Position | None) -> tuple[str, ...]:
    """Cells of `Coordinates`: degrees to a centimetre, then metres; empty where unknown."""
    found = coordinates_of(position)
    degrees = ("" if value is None else f"{value:.7f}" for value in (found.latitude, found.longitude))
    metres = ("" if value is None else f"{value:.2f}" for value in (found.easting, found.northing))
    return (*degrees, *metres, found.zone or "")


def reference_of(position: Position | None) -> str:
    """Reference of the coordinates, such as a UTM zone; empty without a position."""
    if position is None:
        return ""
    return "WGS84" if isinstance(position, GeoPosition) else position.reference
