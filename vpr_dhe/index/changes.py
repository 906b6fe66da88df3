"""Comparison of a list of images with an index: new, changed, updated and unchanged ones."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

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
    folders = snapshot.manifest.folders
    for record in _unique(records):
        id = snapshot.find(record.path)
        if id is None:
            to_extract.append(record)
        elif not snapshot.stamp(id).matches(folders.locate(record.path)):
            to_extract.append(record)
            replaced[record.path] = id
        elif (known := snapshot.image(id)) != (merged := _merged(record, known)):
            updated[id] = merged
        else:
            unchanged += 1
    return Changes(tuple(to_extract), replaced, updated, unchanged)


def _unique(records: Iterable[ImageRecord]) -> Iterator[ImageRecord]:
    seen: set[str] = set()
    for record in records:
        if record.path not in seen:
            seen.add(record.path)
            yield record


def _merged(given: ImageRecord, known: ImageRecord) -> ImageRecord:
    """Combine two records: given values override known ones."""
    missing = {
        name: getattr(known, name)
        for name in ("position", "heading_deg", "timestamp_s")
        if getattr(given, name) is None
    }
    return replace(given, **missing)
