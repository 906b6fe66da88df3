"""Compaction: selection of segments to merge, and copying into larger ones without removed rows."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from jaxtyping import Int64

from vpr_dhe.index.codecs import LocalMapCodec
from vpr_dhe.index.segments import Segment, SegmentInfo, SegmentWriter, StoredImage

# A segment is merged only into one of at least half this many times its size: as in a log-structured merge tree
# (O'Neil et al., 1996), each image is copied a few times, not once for every image after it.
FAN_IN = 8
# Largest segment that adding images makes by merging, which takes seconds.
GROWING_IMAGES = 32_768
# Largest segment that `compact` makes: a million images become sixteen segments.
COMPACT_IMAGES = 65_536


def mergeable_tail(counts: Sequence[int]) -> int:
    """Number of newest segments to merge into one, given the number of images in each; 0 if none."""
    worthwhile, total, largest = 0, 0, 0
    for length, count in enumerate(reversed(counts), start=1):
        total, largest = total + count, max(largest, count)
        if total > GROWING_IMAGES:
            break
        if length >= FAN_IN and largest * FAN_IN <= 2 * total:
            worthwhile = length
    return worthwhile


def grouped(segments: Sequence[Segment], size_of: Callable[[Segment], int], max_size: int) -> list[list[Segment]]:
    """Group neighbouring segments up to a size; larger ones form their own groups."""
    groups: list[list[Segment]] = []
    room = 0
    for segment in segments:
        size = size_of(segment)
        if not groups or size > room:
            groups.append([])
            room = max_size
        groups[-1].append(segment)
        room -= size
    return groups


def groups_to_rewrite(segments: Sequence[Segment], removed: Int64[np.ndarray, " removed"]) -> list[list[Segment]]:
    """Group neighbouring segments that should be copied into one: small ones, and those with removed rows."""
    groups = grouped(segments, lambda segment: int(segment.live(removed).sum()), COMPACT_IMAGES)
    return [group for group in groups if len(group) > 1 or not group[0].live(removed).all()]


@dataclass(frozen=True)
class Recoding:
    """Conversion of stored images from one codec to another."""

    before: LocalMapCodec
    after: LocalMapCodec

    def __call__(self, stored: StoredImage) -> StoredImage:
        """Encode the local map with the other codec."""
        record = np.frombuffer(stored.local_map, np.uint8)
        return replace(stored, local_map=self.after.encode(self.before.decode(record[None])[0]))


def rewrite(
    folder: Path,
    segments: Sequence[Segment],
    removed: Int64[np.ndarray, " removed"],
    *,
    recoding: Recoding | None = None,
) -> SegmentInfo | None:
    """Copy the rows that were not removed into one new segment; None if there are none. Ids stay.

    Args:
        folder: folder of segments.
        segments: neighbouring segments.
        removed: ids to leave out.
        recoding: conversion of local maps, if any.

    Raises:
        IndexDamagedError: if a row does not agree with its checksums.
    """
    writer = SegmentWriter(folder, segments[0].info.first_id)
    try:
        for segment in segments:
            for row in np.flatnonzero(segment.live(removed)):
                stored = segment.stored(int(row))
                writer.append(recoding(stored) if recoding else stored)
        return writer.seal()
    except BaseException:
        writer.discard()
        raise
