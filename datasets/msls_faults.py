"""Faults of copies of Mapillary Street-Level Sequences, whose tables say which images there are."""

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
    """The keys of a table, and how many of them are no panoramas."""

    keys: frozenset[str]
    plain: int


def msls_faults(copy: UserCopy) -> Iterator[Finding]:
    """All faults of this data set; of others none."""
    if copy.card.layout != "msls":
        return
    yield from _tests_inside(copy)
    for split in copy.present:
        yield from _tables_missing(copy, split)
        yield from _images(copy, split)


def _tests_inside(copy: UserCopy) -> Iterator[Finding]:
    if copy.has("train_val/test"):
        mend = f"move it to {copy.root / 'test'}"
        yield Finding("train_val/test is there", "the folder test beside train_val", mend)


def _parts(split: Split) -> Iterator[PurePosixPath]:
    for folder in split.folders:
        yield PurePosixPath(folder).parent


def _tables_missing(copy: UserCopy, split: Split) -> Iterator[Finding]:
    folders = [part for part in _parts(split) if copy.has(part.as_posix())]
    tables = (*_POSITION_TABLES, *_TABLES) if split.positions else _TABLES
    missing = [part / table for part in folders for table in tables if not (copy.root / part / table).is_file()]
    if missing:
        mend = f"unpack metadata.zip into {copy.root}"
        yield Finding(some(missing, "missing"), f"{', '.join(tables)} in each folder", mend)


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
    """Keys of raw.csv; None where it is missing or is no such table, which is said elsewhere or by the reader."""
    try:
        with table.open(encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file))
    except (OSError, UnicodeDecodeError, csv.Error):
        return None
    if not rows or not {"key", "pano"} <= rows[0].keys():
        return None
    return _Rows(frozenset(row["key"] for row in rows), sum(row["pano"] != "True" for row in rows))
