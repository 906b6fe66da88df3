"""Circles that a search is restricted to, as given in text."""

from collections.abc import Set

from vpr_dhe.errors import BadInputError
from vpr_dhe.geography.distance import EARTH, reference_frame_of, unit_of
from vpr_dhe.index.snapshot import Snapshot
from vpr_dhe.records import GeoPosition, MetricPosition, Near, NearbyImages, Position
from vpr_dhe.runtime.text import counted


def parse_near(text: str, within_m: float, snapshot: Snapshot) -> Near:
    """Read `LAT,LON` in degrees or, for an index whose positions are all in one local frame, `X,Y` in that frame.

    Raises:
        BadInputError: if the text is neither, a number is out of range, or no image has a position.
    """
    try:
        first, second = map(float, text.split(","))
    except ValueError as error:
        raise BadInputError(f"the position is {text!r}; expected LAT,LON in degrees such as 49.23,7.01") from error
    return Near(_position(first, second, snapshot.reference_frames, str(snapshot.folder)), within_m)


def _position(first: float, second: float, frames: Set[str], index: str) -> Position:
    if EARTH in frames:
        return GeoPosition(first, second)
    if len(frames) == 1:
        return MetricPosition(first, second, *frames)
    if frames:
        raise BadInputError(
            f"positions of {index} are in the frames {' and '.join(sorted(frames))}; in Python, name one with "
            "near=Near(MetricPosition(x, y, frame), metres)"
        )
    raise BadInputError(
        f"no image of {index} has a position, so none can be near one; index the images with --positions"
    )


def nearby_text(nearby: NearbyImages) -> str:
    """Images that a restricted search compares, and those that it leaves out, in words."""
    found = counted(nearby.images, "image") if nearby.images else "no image"
    left_out = f"; {counted(nearby.unplaced, 'image')} without such a position left out" if nearby.unplaced else ""
    return f"{found} within {_circle_text(nearby.near)}{left_out}"


def _circle_text(near: Near) -> str:
    place = near.position
    radius = f"{near.within_m:g}{unit_of(reference_frame_of(place))}"
    if isinstance(place, GeoPosition):
        return f"{radius} of latitude {place.latitude_deg:g}, longitude {place.longitude_deg:g}"
    return f"{radius} of x {place.x_m:g}, y {place.y_m:g}"
