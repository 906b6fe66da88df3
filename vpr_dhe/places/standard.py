"""The field's standard layout: images/{train,val,test}/{database,queries} with positions in the file names.

A name is `@utm_east@utm_north@zone_number@zone_letter@latitude@longitude@pano_id@tile_num@heading@pitch@roll@height`
`@timestamp@note@.jpg`; only the two UTM coordinates are required, and the other fields may be empty. Two plain folders,
`database` and `queries`, are read as well; where their names hold no positions, images correspond by their place in the
sorted folder.
"""

import math
import re
from datetime import UTC, datetime
from pathlib import Path

from vpr_dhe.errors import DatasetError
from vpr_dhe.images import list_images
from vpr_dhe.places.base import PlaceDataset, PlaceSplit, positives_by_frame, positives_within
from vpr_dhe.records import ImageRecord, MetricPosition

_DATABASE, _QUERIES = "database", "queries"
_ZONE_NUMBER, _ZONE_LETTER, _HEADING, _TIMESTAMP = 3, 4, 9, 13
# The forms that the scripts laying out the published data sets write: YYYYMMDD_hhmmss, cut off after any part
# (github.com/gmberton/VPR-datasets-downloader, `is_valid_timestamp`).
_TIMESTAMP_FORM = re.compile(r"(\d{4})(?:(\d\d)(?:(\d\d)(?:_(\d\d)(?:(\d\d)(\d\d)?)?)?)?)?", re.ASCII)


def record_of(path: str) -> ImageRecord:
    """Read position, heading and timestamp from a file name of the standard layout; other names have none of them."""
    name = Path(path).name
    if not name.startswith("@"):
        return ImageRecord(path)
    fields = name.rsplit("@", 1)[0].split("@")
    try:
        east, north = float(fields[1]), float(fields[2])
    except (IndexError, ValueError):
        return ImageRecord(path)
    if not (math.isfinite(east) and math.isfinite(north)):
        return ImageRecord(path)
    zone = "".join(fields[_ZONE_NUMBER : _ZONE_LETTER + 1])
    position = MetricPosition(east, north, f"UTM {zone}" if zone else "UTM")
    return ImageRecord(path, position, _heading(fields), _timestamp(fields))


def _heading(fields: list[str]) -> float | None:
    try:
        heading = float(fields[_HEADING])
    except (IndexError, ValueError):
        return None
    return heading if math.isfinite(heading) else None


def _timestamp(fields: list[str]) -> float | None:
    """Seconds since the epoch at which the stated year, month, day, hour, minute or second began.

    The layout names no time zone, so UTC is assumed: several hours off at worst, which matters less to those who tell
    seasons and years apart than having no time at all.
    """
    form = _TIMESTAMP_FORM.fullmatch(fields[_TIMESTAMP]) if len(fields) > _TIMESTAMP else None
    if form is None:
        return None
    year, month, day, hour, minute, second = form.groups()
    try:
        began = datetime(
            int(year), int(month or 1), int(day or 1), int(hour or 0), int(minute or 0), int(second or 0), tzinfo=UTC
        )
    except ValueError:  # a thirteenth month, or a number that was no date
        return None
    return began.timestamp()


def read_split(folder: Path) -> PlaceSplit:
    """List the images of a folder with what their names say."""
    return PlaceSplit(folder, tuple(record_of(path) for path in list_images(folder)))


def read_standard(root: Path, *, split: str = "test", radius_m: float = 25.0) -> PlaceDataset:
    """Read one split of the standard layout.

    Raises:
        DatasetError: if the folders are missing or a name holds no position.
    """
    folder = root / "images" / split
    _require_folders(folder, f"{root} is not in the standard layout")
    database, queries = read_split(folder / _DATABASE), read_split(folder / _QUERIES)
    positives = positives_within(database, queries, radius_m)
    return PlaceDataset(root.name, f"standard layout, {split}, within {radius_m:g} m", database, queries, positives)


def read_folders(root: Path, *, radius_m: float = 25.0, frame_tolerance: int = 0) -> PlaceDataset:
    """Read two plain folders; without positions in the names, query i shows what database image i shows.

    Raises:
        DatasetError: if the folders are missing, or only some names hold a position.
    """
    _require_folders(root, f"{root} is not a pair of folders")
    database, queries = read_split(root / _DATABASE), read_split(root / _QUERIES)
    if any(record.position for record in (*database.records, *queries.records)):
        positives = positives_within(database, queries, radius_m)
        return PlaceDataset(root.name, f"two folders, within {radius_m:g} m", database, queries, positives)
    positives = positives_by_frame(len(database.records), len(queries.records), frame_tolerance)
    protocol = f"two folders, same place in the sorted folder, tolerance {frame_tolerance}"
    return PlaceDataset(root.name, protocol, database, queries, positives)


def _require_folders(folder: Path, complaint: str) -> None:
    for name in (_DATABASE, _QUERIES):
        if not (folder / name).is_dir():
            raise DatasetError(f"{complaint}: {folder / name} does not exist; expected both {_DATABASE} and {_QUERIES}")
