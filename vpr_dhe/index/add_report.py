"""Report of the images that were added to an index."""

from collections.abc import Sequence
from dataclasses import dataclass

from vpr_dhe.index.changes import Changes
from vpr_dhe.index.ingest import SealedChunk, UnusedPosition
from vpr_dhe.index.manifest import SkippedImage


@dataclass(frozen=True)
class AddReport:
    """Counts of what `PlaceIndex.add` did, and the images that were skipped.

    Args:
        added: new images.
        replaced: images whose file had changed, and were extracted again.
        updated: images whose position, heading or time was updated.
        unchanged: images that were in the index already.
        skipped: images that could not be read.
        blank: paths of images with too little texture to match anything, among those that were extracted.
        unused_positions: added or replaced images whose metadata states a position that cannot be used.
    """

    added: int
    replaced: int
    updated: int
    unchanged: int
    skipped: tuple[SkippedImage, ...]
    blank: tuple[str, ...] = ()
    unused_positions: tuple[UnusedPosition, ...] = ()

    @classmethod
    def of(cls, changes: Changes, sealed: Sequence[SealedChunk]) -> "AddReport":
        """Summarise changes and the chunks that they led to."""
        skipped = tuple(image for chunk in sealed for image in chunk.skipped)
        unread = {image.path for image in skipped}
        replaced = sum(path not in unread for path in changes.replaced)
        added = len(changes.to_extract) - len(unread) - replaced
        return cls(
            added,
            replaced,
            len(changes.updated),
            changes.unchanged,
            skipped,
            blank=tuple(path for chunk in sealed for path in chunk.blank),
            unused_positions=tuple(image for chunk in sealed for image in chunk.unused),
        )
