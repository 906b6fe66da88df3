"""Fewer, larger segments without removed rows: which to merge, and the copying."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType

import numpy as np
from jaxtyping import Int64

from vpr_dhe.index.codecs import LocalMapCodec
from vpr_dhe.index.segments import Segment, SegmentInfo, SegmentWriter, StoredImage
from vpr_dhe.records import ImageRecord

# A segment is merged with others only into one of at least half as many times its size: as in a log-structured merge
# tree (O'Neil et al., 1996), an image that is added alone is copied a few times, not once for each image after it.
FAN_IN = 8
# Growing merges segments up to this many images: a pause of seconds, and a million images in few enough files.
GROWING_IMAGES = 32_768
# Compaction has time: a million images become sixteen segments.
COMPACT_IMAGES = 65_536


def mergeable_tail(counts: Sequence[int]) -> int:
    """How many of the newest segments are worth one, given how many images each holds; 0 if none are."""
    worthwhile, total, largest = 0, 0, 0
    for length, count in enumerate(reversed(counts), start=1):
        total, largest = total + count, max(largest, count)
        if total > GROWING_IMAGES:
            break
        if length >= FAN_IN and largest * FAN_IN <= 2 * total:
            worthwhile = length
    return worthwhile


def grouped(segments: Sequence[Segment], size_of: Callable[[Segment], int], most: int) -> list[list[Segment]]:
    """Neighbouring segments in groups of at most this size; one that is larger is a group alone."""
    groups: list[list[Segment]] = []
    room = 0
    for segment in segments:
        size = size_of(segment)
        if not groups or size > room:
            groups.append([])
            room = most
        groups[-1].append(segment)
        room -= size
    return groups


def groups_to_rewrite(segments: Sequence[Segment], removed: Int64[np.ndarray, " removed"]) -> list[list[Segment]]:
    """Which neighbouring segments to copy into one: small ones together, and those with removed rows."""
    groups = grouped(segments, lambda segment: int(segment.live(removed).sum()), COMPACT_IMAGES)
    return [group for group in groups if len(group) > 1 or not group[0].live(removed).all()]


@dataclass(frozen=True)
class Recoding:
    """From one codec to another."""

    before: LocalMapCodec
    after: LocalMapCodec

    def __call__(self, stored: StoredImage) -> StoredImage:
        """Store the same local map in another way."""
        record = np.frombuffer(stored.local_map, np.uint8)
        return replace(stored, local_map=self.after.encode(self.before.decode(record[None])[0]))


def rewrite(
    folder: Path,
    segments: Sequence[Segment],
    removed: Int64[np.ndarray, " removed"],
    *,
    renewed: Mapping[int, ImageRecord] = MappingProxyType({}),
    recoding: Recoding | None = None,
) -> SegmentInfo | None:
    """Copy the rows that live into one new segment below `folder`, or none where no row does; ids stay.

    Args:
        folder: of segments.
        segments: neighbours.
        removed: ids to leave out.
        renewed: what is known now of some images, by id.
        recoding: how local maps are to be stored, if not as they are.

    Raises:
        IndexDamagedError: if a row does not agree with its checksums: damage is not copied under a new checksum.
    """
    writer = SegmentWriter(folder, segments[0].fact.first_id)
    try:
        for segment in segments:
            for row in np.flatnonzero(segment.live(removed)):
                stored = _renewed(segment.stored(int(row)), renewed)
                writer.append(recoding(stored) if recoding else stored)
        return writer.seal()
    except BaseException:
        writer.discard()
        raise


def _renewed(stored: StoredImage, renewed: Mapping[int, ImageRecord]) -> StoredImage:
    if stored.id not in renewed:
        return stored
    return replace(stored, image=replace(stored.image, record=renewed[stored.id]))
