"""The field's standard layout: images/{train,val,test}/{database,queries} with positions in the file names.

A name is `@utm_east@utm_north@zone_number@zone_letter@latitude@longitude@id@tile@heading@pitch@...@.jpg`; only the two
UTM coordinates are required. Two plain folders, `database` and `queries`, are read as well; where their names hold no
positions, images correspond by their place in the sorted folder.
"""

import math
from pathlib import Path

from vpr_dhe.errors import DatasetError
from vpr_dhe.images import list_images
from vpr_dhe.places.base import PlaceDataset, PlaceSplit, positives_by_frame, positives_within
from vpr_dhe.records import ImageRecord, MetricPosition

_DATABASE, _QUERIES = "database", "queries"
_ZONE_NUMBER, _ZONE_LETTER, _HEADING = 3, 4, 9


def record_of(path: str) -> ImageRecord:
    """Read position and heading from a file name of the standard layout; a name of another kind has neither."""
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
    return ImageRecord(path, MetricPosition(east, north, f"UTM {zone}" if zone else "UTM"), _heading(fields))


def _heading(fields: list[str]) -> float | None:
    try:
        return float(fields[_HEADING])
    except (IndexError, ValueError):
        return None


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
