"""Data sets of two folders of images, database and queries.

Positives are defined by the first that applies: a file of ground truth; frames, if their tolerance is given; positions,
from a table, file names or EXIF; frames. The frame of a query is the database image of the same name, if every query
has one, otherwise the one at the same index in the sorted folder.
"""

import logging
import math
import os
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath

from vpr_dhe.datasets.base import Layout, PlaceDataset, PlaceSplit, Positives, Protocol, option, positives_by_frame
from vpr_dhe.datasets.ground_truth import read_ground_truth
from vpr_dhe.datasets.standard import (
    DATABASE,
    QUERIES,
    gallery_or,
    holds_database,
    panoramas_of,
    positives_by_position,
    read_split,
    require_folders,
)
from vpr_dhe.errors import BadInputError, DatasetError, ImageError
from vpr_dhe.geography.distance import RADIUS_M
from vpr_dhe.geography.exif import ExifInfo, filled_in, is_complete, read_exif, unused_positions_text
from vpr_dhe.geography.position_table import read_positions
from vpr_dhe.images.opened import read_file
from vpr_dhe.records import ImageRecord

_log = logging.getLogger(__name__)

# Reading positions from every file of two large folders, such as frames of a video, would take minutes.
_EXIF_PROBES = 8
_BESIDE_GROUND_TRUTH = frozenset({"database", "queries", "ground_truth", "radius_m"})
_DIGITS = re.compile(r"(\d+)")


def read_folders(root: Path, protocol: Protocol | None = None) -> PlaceDataset:
    """Read two folders; `protocol` may set all options but `split` and `variant`.

    Raises:
        BadInputError: if options contradict each other, or a table cannot be read.
        DatasetError: if a folder is missing, or only some images have positions.
    """
    protocol = protocol or Protocol()
    names = protocol.database or gallery_or(root, DATABASE), protocol.queries or QUERIES
    require_folders(root, *names)
    database, queries = (read_split(root / name) for name in names)
    if protocol.ground_truth is not None:
        return _by_file(root, protocol, protocol.ground_truth, database, queries)
    if protocol.frame_tolerance is not None or protocol.query_step is not None:
        _require_frames_alone(protocol)
        return _by_frame(root, protocol, database, queries)
    database, queries = _with_positions(root, protocol, database, queries)
    placed = any(record.position for record in (*database.records, *queries.records))
    if placed or protocol.radius_m is not None or protocol.heading_tolerance_deg is not None:
        return _by_position(root, protocol, database, queries)
    return _by_frame(root, protocol, database, queries)


def _by_file(root: Path, protocol: Protocol, file: Path, database: PlaceSplit, queries: PlaceSplit) -> PlaceDataset:
    clash = next((name for name in protocol.chosen if name not in _BESIDE_GROUND_TRUTH), None)
    if clash:
        raise BadInputError(f"--ground-truth and {option(clash)} both define the positives; give one")
    truth = read_ground_truth(file, database, queries, protocol.radius_m)
    return _dataset(root, truth.rule, database, queries, truth.positives)


def _by_position(root: Path, protocol: Protocol, database: PlaceSplit, queries: PlaceSplit) -> PlaceDataset:
    radius_m = RADIUS_M if protocol.radius_m is None else protocol.radius_m
    source = f" by {protocol.positions.name}" if protocol.positions else ""
    positives, rule = positives_by_position(database, queries, radius_m, protocol.heading_tolerance_deg)
    return _dataset(root, f"{rule}{source}", database, queries, positives)


def _by_frame(root: Path, protocol: Protocol, database: PlaceSplit, queries: PlaceSplit) -> PlaceDataset:
    tolerance = protocol.frame_tolerance or 0
    database, queries = _in_order_of_frames(database), _in_order_of_frames(queries)
    if protocol.query_step is not None:
        queries = _thinned(database, queries, protocol.query_step)
        rule, frames = f"one query for every {protocol.query_step} frames", _multiples(queries, protocol.query_step)
    elif (frames := _frames_of_names(database, queries)) is not None:
        rule = "same name"
    else:
        _require_order(protocol, database, queries)
        rule, frames = "same place in the sorted folder", _multiples(queries, 1)
    positives = positives_by_frame(len(database.records), frames, tolerance)
    return _dataset(root, f"{rule}, tolerance {tolerance} frames", database, queries, positives)


def _require_order(protocol: Protocol, database: PlaceSplit, queries: PlaceSplit) -> None:
    """Check that correspondence by order was requested if the folders have different lengths."""
    counts = len(database.records), len(queries.records)
    if protocol.frame_tolerance is None and counts[0] != counts[1]:
        raise DatasetError(
            f"positives are unknown for {counts[1]} queries in {queries.folder} among {counts[0]} images in "
            f"{database.folder}: they have neither positions nor equal names; give --positions or --ground-truth, or "
            "--frame-tolerance if image i shows the place of query i"
        )


def _multiples(queries: PlaceSplit, step: int) -> list[int]:
    return [place * step for place in range(len(queries.records))]


def _thinned(database: PlaceSplit, queries: PlaceSplit, step: int) -> PlaceSplit:
    """Take every n-th query, unless the queries already are every n-th frame."""
    frames, count = len(database.records), len(queries.records)
    if count == frames:
        return replace(queries, records=queries.records[::step])
    if count != math.ceil(frames / step):
        raise DatasetError(
            f"{queries.folder} holds {count} images and {database.folder} {frames}; with --query-step {step} expected "
            f"{frames} queries, or {math.ceil(frames / step)} if every {step}th was taken already"
        )
    return queries


def _frames_of_names(database: PlaceSplit, queries: PlaceSplit) -> list[int] | None:
    """Indices of the database images with the names of the queries; None if no query has one.

    Raises:
        DatasetError: if only some queries have one; an extra file would shift all frames after it.
    """
    frame_of = {_stem(record): frame for frame, record in enumerate(database.records)}
    frames = [frame_of[stem] for record in queries.records if (stem := _stem(record)) in frame_of]
    if not frames:
        return None
    if len(frames) < len(queries.records):
        odd = next(record.path for record in queries.records if _stem(record) not in frame_of)
        raise DatasetError(
            f"{queries.folder / odd} has no image of its name in {database.folder}, and {len(frames)} of the "
            f"{len(queries.records)} queries have one; remove surplus files, or give positives by --ground-truth"
        )
    return frames


def _dataset(root: Path, rule: str, database: PlaceSplit, queries: PlaceSplit, positives: Positives) -> PlaceDataset:
    protocol = f"folders {database.folder.name} and {queries.folder.name}, {rule}"
    return PlaceDataset(root.resolve().name, protocol, database, queries, positives, panoramas_of(database.records))


def _require_frames_alone(protocol: Protocol) -> None:
    for name in ("radius_m", "heading_tolerance_deg", "positions"):
        if name in protocol.chosen:
            raise BadInputError(
                f"{option(name)} compares positions, --frame-tolerance and --query-step count frames; "
                "give one or the other"
            )


def _with_positions(
    root: Path, protocol: Protocol, database: PlaceSplit, queries: PlaceSplit
) -> tuple[PlaceSplit, PlaceSplit]:
    if protocol.positions is None:
        return _with_exif(database), _with_exif(queries)
    # Paths in the table are relative to the folder that holds both.
    everything = [
        replace(record, path=os.path.relpath(split.folder.resolve() / record.path, root.resolve()))
        for split in (database, queries)
        for record in split.records
    ]
    placed = read_positions(protocol.positions).apply(everything, root).records
    count = len(database.records)
    return _relative_again(database, placed[:count]), _relative_again(queries, placed[count:])


def _relative_again(split: PlaceSplit, placed: Sequence[ImageRecord]) -> PlaceSplit:
    records = zip(split.records, placed, strict=True)
    return replace(split, records=tuple(replace(known, path=record.path) for record, known in records))


def _with_exif(split: PlaceSplit) -> PlaceSplit:
    """Fill in positions from EXIF, if a sample of the images without positions has them."""
    unplaced = [record for record in split.records if record.position is None]
    probes = unplaced[:: max(1, len(unplaced) // _EXIF_PROBES)]
    if not any(_read_exif(split.folder, record).position for record in probes):
        return split
    records, unused = [], []
    for record in split.records:
        info = ExifInfo() if is_complete(record) else _read_exif(split.folder, record)
        records.append(filled_in(record, info))
        if record.position is None and info.position_fault:
            unused.append((record.path, info.position_fault))
    if unused:
        _log.warning("%s: %s", split.folder, unused_positions_text(unused))
    return replace(split, records=tuple(records))


def _read_exif(folder: Path, record: ImageRecord) -> ExifInfo:
    try:
        return read_exif(read_file(folder / record.path), folder / record.path)
    except ImageError:
        return ExifInfo()


def _in_order_of_frames(split: PlaceSplit) -> PlaceSplit:
    """Sort images by the numbers in their names: frame 10 comes after frame 9.

    Raises:
        DatasetError: if two files differ only in their extension, which would shift all later frames.
    """
    seen: dict[PurePosixPath, str] = {}
    for record in split.records:
        other = seen.setdefault(_stem(record), record.path)
        if other != record.path:
            raise DatasetError(
                f"{split.folder} holds {other} and {record.path}; images correspond by their order, so keep one of them"
            )
    return replace(split, records=tuple(sorted(split.records, key=lambda record: _natural_key(record.path))))


def _natural_key(path: str) -> tuple[list[tuple[int, int, str]], str]:
    parts = [(1, int(part), "") if part.isdecimal() else (0, 0, part) for part in _DIGITS.split(path) if part]
    return parts, path


def _stem(record: ImageRecord) -> PurePosixPath:
    return PurePosixPath(record.path).with_suffix("")


def _recognises(root: Path) -> bool:
    return holds_database(root) and (root / QUERIES).is_dir()


LAYOUT = Layout(
    name="folders",
    expected="two folders, database and queries, or others by --database and --queries",
    options=frozenset(
        {
            "database",
            "queries",
            "radius_m",
            "heading_tolerance_deg",
            "frame_tolerance",
            "query_step",
            "positions",
            "ground_truth",
        }
    ),
    recognises=_recognises,
    read=read_folders,
)
