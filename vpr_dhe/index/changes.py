"""Comparison of a list of images with an index: new, changed, updated and unchanged ones."""

import os
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
from jaxtyping import Int64

from vpr_dhe.index.snapshot import Snapshot
from vpr_dhe.records import ImageRecord


@dataclass(frozen=True)
class Changes:
    """Differences between a list of images and an index.

    Args:
        to_extract: new images, and those whose file has changed.
        replaced: old ids of changed images, by path.
        updated: unchanged images whose position, heading or time is new, by id.
        unchanged: number of the other images.
    """

    to_extract: tuple[ImageRecord, ...]
    replaced: dict[str, int]
    updated: dict[int, ImageRecord]
    unchanged: int


def changes_between(snapshot: Snapshot, records: Iterable[ImageRecord]) -> Changes:
    """Compare images with an index by path, then size and time, then content; repeated paths count once."""
    to_extract: list[ImageRecord] = []
    replaced: dict[str, int] = {}
    updated: dict[int, ImageRecord] = {}
    unchanged = 0
    unique = _unique(records)
    ids = snapshot.find_all(record.path for record in unique)
    is_unchanged = _file_comparison(snapshot, ids)
    for record, id in zip(unique, ids.tolist(), strict=True):
        if id < 0:
            to_extract.append(record)
        elif not is_unchanged(id, record.path):
            to_extract.append(record)
            replaced[record.path] = id
        elif _states_nothing(record):
            unchanged += 1
        elif (known := snapshot.image(id)) != (merged := _merged(record, known)):
            updated[id] = merged
        else:
            unchanged += 1
    return Changes(tuple(to_extract), replaced, updated, unchanged)


def _unique(records: Iterable[ImageRecord]) -> list[ImageRecord]:
    """The first record of each path."""
    first: dict[str, ImageRecord] = {}
    for record in records:
        first.setdefault(record.path, record)
    return list(first.values())


def _file_comparison(snapshot: Snapshot, ids: Int64[np.ndarray, " images"]) -> Callable[[int, str], bool]:
    """Function that tells whether the file of an image is unchanged, as `FileStamp.matches` does.

    It must be called once for each id that is not -1, in their order. Files of the same size and time, which most are,
    need no more than one system call.
    """
    folders, stats = snapshot.manifest.folders, iter(snapshot.file_stats(ids[ids >= 0]))
    locate = folders.locate if folders.merged else partial(os.path.join, folders.main)

    def is_unchanged(id: int, path: str) -> bool:
        stored = next(stats)
        with suppress(OSError):
            status = os.stat(locate(path))  # noqa: PTH116 (a Path takes longer than the call)
            if (status.st_size, status.st_mtime_ns) == stored:
                return True
        return snapshot.stamp(id).matches(folders.locate(path))

    return is_unchanged


def _states_nothing(record: ImageRecord) -> bool:
    """Whether a record holds nothing but its path, which is that of the image in the index."""
    return record.position is None and record.heading_deg is None and record.timestamp_s is None


def _merged(given: ImageRecord, known: ImageRecord) -> ImageRecord:
    """Combine two records: given values override known ones."""
    missing = {
        name: getattr(known, name)
        for name in ("position", "heading_deg", "timestamp_s")
        if getattr(given, name) is None
    }
    return replace(given, **missing)
