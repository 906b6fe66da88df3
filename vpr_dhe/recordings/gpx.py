"""Tracks of GPS loggers and phones in GPX files.

Source: GPX 1.1 schema, https://www.topografix.com/GPX/1/1/; times are in UTC.
"""

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from xml.etree import ElementTree

from vpr_dhe.errors import BadInputError, DatasetError
from vpr_dhe.recordings.fixes import FixTrack, valid_fix
from vpr_dhe.records import GeoPosition, StrPath

MAX_GAP_S = 30.0
"""Maximum gap for interpolation; loggers that save power write a point every few seconds."""


def read_track(path: StrPath) -> FixTrack:
    """Read the points of all tracks of a GPX file, by Unix time.

    Raises:
        DatasetError: if it is missing, not GPX, or no point has a position and a time.
    """
    path = Path(path)
    try:
        root = ElementTree.parse(path).getroot()
    except OSError as error:
        raise DatasetError(f"track {path} cannot be read ({error.strerror})") from error
    except ElementTree.ParseError as error:
        raise DatasetError(f"track {path} is not GPX ({error}); expected the file of a GPS logger") from error
    track = FixTrack(_points(root), MAX_GAP_S)
    if not len(track):
        raise DatasetError(f"track {path} has no point with a time; export it with times, as a track and not a route")
    return track


def _points(root: ElementTree.Element) -> Iterator[tuple[float, GeoPosition]]:
    for point in root.iter():
        # Namespaces differ between versions.
        if point.tag.rpartition("}")[2] != "trkpt":
            continue
        text = next((child.text for child in point if child.tag.rpartition("}")[2] == "time"), None)
        try:
            position = valid_fix(float(point.get("lat", "nan")), float(point.get("lon", "nan")))
            time_s = unix_time_s(text or "")
        except (ValueError, BadInputError):
            continue
        if position is not None:
            yield time_s, position


def unix_time_s(text: str) -> float:
    """Unix time of a time in ISO 8601, in UTC unless it has an offset.

    Raises:
        BadInputError: if it is not a time.
    """
    try:
        time = datetime.fromisoformat(text.strip())
    except ValueError as error:
        raise BadInputError(f"the time is {text!r}; expected ISO 8601 such as 2026-05-01T10:30:00Z") from error
    return (time if time.tzinfo else time.replace(tzinfo=UTC)).timestamp()


def iso_time(time_s: float) -> str:
    """Unix time as ISO 8601, in UTC."""
    return datetime.fromtimestamp(time_s, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
