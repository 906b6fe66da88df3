"""Faults of copies of Mapillary Street-Level Sequences, checked against its tables."""

import csv
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from cards import Split
from findings import Finding, some
from user_copy import UserCopy

_POSITION_TABLES = ("raw.csv", "postprocessed.csv")
_TABLES = ("seq_info.csv", "subtask_index.csv")
_PARTS = ("database", "query")


@dataclass(frozen=True)
class _Rows:
    """Keys of a table, and the number of them that are not panoramas."""

    keys: frozenset[str]
    plain: int


def msls_faults(copy: UserCopy) -> Iterator[Finding]:
    """Yield the faults of MSLS; none for other data sets."""
    if copy.card.layout != "msls":
        return
    yield from _tests_inside(copy)
    for split in copy.present:
        yield from _tables_missing(copy, split)
        yield from _images(copy, split)


def _tests_inside(copy: UserCopy) -> Iterator[Finding]:
    if copy.has("train_val/test"):
        remedy = f"move it to {copy.root / 'test'}"
        yield Finding("train_val/test is there", "the folder test beside train_val", remedy)


def _parts(split: Split) -> Iterator[PurePosixPath]:
    for folder in split.folders:
        yield PurePosixPath(folder).parent


def _tables_missing(copy: UserCopy, split: Split) -> Iterator[Finding]:
    folders = [part for part in _parts(split) if copy.has(part.as_posix())]
    tables = (*_POSITION_TABLES, *_TABLES) if split.positions else _TABLES
    missing = [part / table for part in folders for table in tables if not (copy.root / part / table).is_file()]
    if missing:
        remedy = f"unpack metadata.zip into {copy.root}"
        yield Finding(some(missing, "missing"), f"{', '.join(tables)} in each folder", remedy)


def _images(copy: UserCopy, split: Split) -> Iterator[Finding]:
    plain = dict.fromkeys(_PARTS, 0)
    complete = True
    for part in _parts(split):
        rows = _read(copy.root / part / "raw.csv")
        if rows is None:
            complete = False
            continue
        plain[part.name] += rows.plain
        there = {image.path.stem for image in copy.images(f"{part}/images")}
        absent = sorted(rows.keys - there)
        if absent:
            found = some([part / "images" / f"{key}.jpg" for key in absent], "missing")
            yield Finding(found, f"the {len(rows.keys):,} images of {part}/raw.csv", "unpack all images_vol archives")
    for part, expected in zip(_PARTS, (split.database_images, split.query_images), strict=True):
        if complete and expected is not None and plain[part] != expected:
            found = f"the tables of split {split.name} list {plain[part]:,} {part} images that are no panoramas"
            yield Finding(found, f"{expected:,}", "unpack metadata.zip and the newest patch again")


def _read(table: Path) -> _Rows | None:
    """Keys of raw.csv; None if it is missing or invalid, which other checks or the reader report."""
    try:
        with table.open(encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file))
    except (OSError, UnicodeDecodeError, csv.Error):
        return None
    if not rows or not {"key", "pano"} <= rows[0].keys():
        return None
    return _Rows(frozenset(row["key"] for row in rows), sum(row["pano"] != "True" for row in rows))
