"""Standard layout of VPR data sets: images/{train,val,test}/{database,queries} with positions in the file names.

A name is `@utm_east@utm_north@zone_number@zone_letter@latitude@longitude@pano_id@tile_num@heading@pitch@roll@height`
`@timestamp@note@.jpg`; only the two UTM coordinates are required, and the other fields may be empty. A list of images
next to a folder, `<folder>_images_paths.txt`, with one path per line, selects some of its images and their order.

Source: github.com/gmberton/VPR-datasets-downloader and github.com/gmberton/VPR-methods-evaluation.
"""

import logging
import math
import re
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
from jaxtyping import Int64

from vpr_dhe.datasets.base import (
    Layout,
    PlaceDataset,
    PlaceSplit,
    Positives,
    Protocol,
    positives_facing,
    positives_within,
)
from vpr_dhe.datasets.image_lists import list_beside, read_image_list
from vpr_dhe.errors import DatasetError
from vpr_dhe.geography.distance import RADIUS_M
from vpr_dhe.images.listing import list_images
from vpr_dhe.records import ImageRecord, MetricPosition, StrPath

_log = logging.getLogger(__name__)

DATABASE, QUERIES, GALLERY = "database", "queries", "gallery"
_SPLITS = ("train", "val", "test")
_ZONE_NUMBER, _ZONE_LETTER, _PANORAMA, _HEADING, _TIMESTAMP = 3, 4, 7, 9, 13
# Formats written by the scripts for published data sets: YYYYMMDD_hhmmss, truncated after any part
# (github.com/gmberton/VPR-datasets-downloader, `is_valid_timestamp`).
_TIMESTAMP_FORM = re.compile(r"(\d{4})(?:(\d\d)(?:(\d\d)(?:_(\d\d)(?:(\d\d)(\d\d)?)?)?)?)?", re.ASCII)


def record_of(path: str) -> ImageRecord:
    """Parse position, heading and timestamp of a file name in the standard layout; None for other names."""
    name = path.rpartition("/")[2]  # without a Path, which would take most of the time for a million images
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
    """Start of the stated year, month, day, hour, minute or second, in seconds since the epoch.

    The layout has no time zone. UTC is assumed, which may be hours off.
    """
    form = _TIMESTAMP_FORM.fullmatch(fields[_TIMESTAMP]) if len(fields) > _TIMESTAMP else None
    if form is None:
        return None
    year, month, day, hour, minute, second = form.groups()
    try:
        start = datetime(
            int(year), int(month or 1), int(day or 1), int(hour or 0), int(minute or 0), int(second or 0), tzinfo=UTC
        )
    except ValueError:  # digits that are not a date
        return None
    return start.timestamp()


def read_split(folder: StrPath) -> PlaceSplit:
    """List the images of a folder, or those in the list next to it, with positions from their names.

    If a list is used, the number of images that it leaves out is logged as a warning.

    Raises:
        DatasetError: if the list is empty, names an image twice, or names none of the folder.
        ListingError: if there is no list and a part of the folder cannot be listed.
    """
    folder = Path(folder)
    source = list_beside(folder)
    if source is None:
        return split_of(folder, list_images(folder))
    listed = read_image_list(source, folder)
    _log.warning("%s", listed.text)
    return split_of(folder, listed.paths)


def split_of(folder: Path, paths: Iterable[str]) -> PlaceSplit:
    """Make the split of some images of a folder, with positions from their names."""
    return PlaceSplit(folder, tuple(map(record_of, paths)))


def panoramas_of(records: tuple[ImageRecord, ...]) -> Int64[np.ndarray, " _records"] | None:
    """Number the source panoramas of images by position and panorama in their names; None if a name lacks these."""
    keys = [_panorama_of(Path(record.path).name) for record in records]
    if any(key is None for key in keys):
        return None
    numbers = {key: number for number, key in enumerate(dict.fromkeys(keys))}
    return np.array([numbers[key] for key in keys], dtype=np.int64)


def _panorama_of(name: str) -> tuple[str, ...] | None:
    fields = name.split("@")
    return (*fields[1:3], fields[_PANORAMA]) if len(fields) > _PANORAMA and fields[_PANORAMA] else None


def read_standard(
    root: Path,
    *,
    split: str = "test",
    radius_m: float = RADIUS_M,
    heading_tolerance_deg: float | None = None,
    database: str = DATABASE,
    queries: str = QUERIES,
) -> PlaceDataset:
    """Read one split of the standard layout; `database` and `queries` are its folders; `gallery` is also accepted.

    Raises:
        DatasetError: if the folders are missing or a name has no position.
    """
    folder = _images_folder(root) / split
    if not folder.is_dir():
        found = ", ".join(name for name in _SPLITS if (_images_folder(root) / name).is_dir())
        raise DatasetError(f"{folder} does not exist; found {found or 'no split'}; choose one with --split")
    database = gallery_or(folder, database)
    require_folders(folder, database, queries)
    known, asked = read_split(folder / database), read_split(folder / queries)
    positives, rule = positives_by_position(known, asked, radius_m, heading_tolerance_deg)
    names = "" if (database, queries) == (DATABASE, QUERIES) else f" {database} and {queries},"
    return PlaceDataset(
        root.resolve().name,
        f"standard layout, {split},{names} {rule}",
        known,
        asked,
        positives,
        panoramas_of(known.records),
    )


def positives_by_position(
    database: PlaceSplit, queries: PlaceSplit, radius_m: float, heading_tolerance_deg: float | None
) -> tuple[Positives, str]:
    """Find nearby database images, with a similar heading if a tolerance is given; also return the rule in words."""
    positives, rule = positives_within(database, queries, radius_m), f"within {radius_m:g} m"
    if heading_tolerance_deg is None:
        return positives, rule
    facing = positives_facing(database, queries, positives, heading_tolerance_deg)
    return facing, f"{rule} and {heading_tolerance_deg:g} degrees of heading"


def gallery_or(parent: Path, database: str) -> str:
    """Name of the database folder: as given, or `gallery` if only that exists."""
    return GALLERY if not (parent / database).is_dir() and holds_database(parent) and database == DATABASE else database


def holds_database(parent: Path) -> bool:
    """Whether a folder contains a database folder of either name."""
    return any((parent / name).is_dir() for name in (DATABASE, GALLERY))


def require_folders(parent: Path, database: str, queries: str) -> None:
    """Check that both folders exist.

    Raises:
        DatasetError: if not.
    """
    for name in (database, queries):
        if not (parent / name).is_dir():
            others = sorted(entry.name for entry in parent.iterdir() if entry.is_dir()) if parent.is_dir() else []
            hint = f"; found {', '.join(others[:6])}; name them with --database and --queries" if others else ""
            raise DatasetError(f"{parent / name} does not exist; expected both {database} and {queries}{hint}")


def _images_folder(root: Path) -> Path:
    """Folder of the splits: `images`, or the root itself."""
    return root / "images" if (root / "images").is_dir() else root


def _recognises(root: Path) -> bool:
    return any(holds_database(_images_folder(root) / split) for split in _SPLITS)


def _read(root: Path, protocol: Protocol) -> PlaceDataset:
    return read_standard(
        root,
        split=protocol.split or "test",
        radius_m=RADIUS_M if protocol.radius_m is None else protocol.radius_m,
        heading_tolerance_deg=protocol.heading_tolerance_deg,
        database=protocol.database or DATABASE,
        queries=protocol.queries or QUERIES,
    )


LAYOUT = Layout(
    name="vpr",
    expected="images/{train,val,test}/{database,queries}, with names like @utm_east@utm_north@...jpg",
    options=frozenset({"split", "radius_m", "heading_tolerance_deg", "database", "queries"}),
    recognises=_recognises,
    read=_read,
)
