"""Which of a folder's images an index has to extract, which to look at again, and which it holds already."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from vpr_dhe.index.snapshot import Snapshot
from vpr_dhe.records import ImageRecord


@dataclass(frozen=True)
class Changes:
    """What separates an index from a list of images.

    `fresh` are to be extracted: new ones, and those whose file has changed, whose old id `replaced` holds by path.
    `renewed` are unchanged files of which more is known than when they were indexed, by old id. `unchanged` counts the
    others.
    """

    fresh: tuple[ImageRecord, ...]
    replaced: dict[str, int]
    renewed: dict[int, ImageRecord]
    unchanged: int


def changes_between(snapshot: Snapshot, records: Iterable[ImageRecord]) -> Changes:
    """Compare images with an index by path, then size and time, then content; a path that comes twice counts once."""
    fresh: list[ImageRecord] = []
    replaced: dict[str, int] = {}
    renewed: dict[int, ImageRecord] = {}
    unchanged = 0
    folder = Path(snapshot.manifest.images_folder)
    for record in _unique(records):
        id = snapshot.find(record.path)
        if id is None:
            fresh.append(record)
        elif not snapshot.stamp(id).describes(folder / record.path):
            fresh.append(record)
            replaced[record.path] = id
        elif (known := snapshot.image(id)) != (merged := _merged(record, known)):
            renewed[id] = merged
        else:
            unchanged += 1
    return Changes(tuple(fresh), replaced, renewed, unchanged)


def _unique(records: Iterable[ImageRecord]) -> Iterator[ImageRecord]:
    seen: set[str] = set()
    for record in records:
        if record.path not in seen:
            seen.add(record.path)
            yield record


def _merged(given: ImageRecord, known: ImageRecord) -> ImageRecord:
    """What is given wins; what is not given now, but was found in the file or given before, stays."""
    missing = {
        name: getattr(known, name)
        for name in ("position", "heading_deg", "timestamp_s")
        if getattr(given, name) is None
    }
    return replace(given, **missing)
