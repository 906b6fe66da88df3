"""Writing of the adaptation of an index, and its extension to images that are added later."""

from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np
from jaxtyping import Float32, Int64

from vpr_dhe.index.adaptation.adapted_search import image_terms
from vpr_dhe.index.adaptation.fitting import Fit
from vpr_dhe.index.adaptation.hubs import Reference
from vpr_dhe.index.adaptation.map_images import MapImages
from vpr_dhe.index.adaptation.report import AdaptationInfo
from vpr_dhe.index.adaptation.storage import ImageTerms, Parameters, read_terms, save_parameters, save_terms
from vpr_dhe.index.adaptation.transform import VectorTransform
from vpr_dhe.index.segments import Segment
from vpr_dhe.index.snapshot import STATE, Snapshot
from vpr_dhe.index.vectors import Stack
from vpr_dhe.records import ImageRecord
from vpr_dhe.runtime.sampling import evenly_spread

# Images among which the nearest to a hub are searched: all of a small map, an even sample of a large one.
_REFERENCE_IMAGES = 1 << 12
_BLOCK_ROWS = 1 << 14
# Files of terms are joined once there are more.
_MAX_TERMS_FILES = 16


class MapVectors:
    """Extracted descriptors of the images of a snapshot, in the order of their ids.

    Raises:
        IndexDamagedError: if stored vectors do not agree with their checksums.
    """

    def __init__(self, snapshot: Snapshot) -> None:
        for segment in snapshot.segments:
            segment.require_sound_vectors()
        self._stack = Stack([segment.vectors for segment in snapshot.segments])
        self._rows = np.flatnonzero(np.concatenate([part.live(snapshot.removed) for part in snapshot.segments]))

    def __len__(self) -> int:
        return len(self._rows)

    def take(self, rows: Int64[np.ndarray, " chosen"]) -> Float32[np.ndarray, "chosen dimension"]:
        """Copy some rows."""
        return self._stack.take(self._rows[rows])

    def blocks(self) -> Iterator[tuple[slice, Float32[np.ndarray, "_rows dimension"]]]:
        """Copy all rows block by block, with their numbers."""
        for start in range(0, len(self), _BLOCK_ROWS):
            block = slice(start, min(start + _BLOCK_ROWS, len(self)))
            yield block, self.take(np.arange(block.start, block.stop))


def records_of(snapshot: Snapshot, ids: Int64[np.ndarray, " ids"]) -> list[ImageRecord]:
    """Read the records of images."""
    return [snapshot.image(int(id)) for id in ids]


def save_adaptation(snapshot: Snapshot, vectors: MapVectors, images: MapImages, fit: Fit) -> AdaptationInfo:
    """Write a fitted adaptation with the terms of all rows of a snapshot; nothing is written if no step helps."""
    if fit.transform is None:
        return AdaptationInfo(fit.report)
    folder, ids = snapshot.folder / STATE, snapshot.ids
    rows = evenly_spread(len(ids), _REFERENCE_IMAGES)
    means = _hub_means(vectors, images, rows, fit.transform) if fit.hub_weight else None
    mean_hub = 0.0 if means is None or np.isnan(means).all() else float(np.nanmean(means))
    parameters = Parameters(fit.transform, fit.hub_weight, mean_hub, ids[rows])
    parts = [
        image_terms(parameters, ids[block], taken, None if means is None else means[block])
        for block, taken in vectors.blocks()
    ]
    saved = save_terms(folder, ImageTerms.joined([*parts, *_terms_of_removed(snapshot, parameters)]))
    return AdaptationInfo(fit.report, save_parameters(folder, parameters), (saved,))


def _terms_of_removed(snapshot: Snapshot, parameters: Parameters) -> Iterator[ImageTerms]:
    """Terms of removed images, whose rows stay in their segments, and in FAISS files, until a compaction."""
    for segment in snapshot.segments:
        rows = np.flatnonzero(~segment.live(snapshot.removed))
        yield image_terms(parameters, segment.ids[rows], np.array(segment.vectors[rows]), None)


def _hub_means(
    vectors: MapVectors, images: MapImages, rows: Int64[np.ndarray, " reference"], transform: VectorTransform
) -> Float32[np.ndarray, " images"]:
    reference = Reference(transform.apply(vectors.take(rows)), images.take(rows))
    return np.concatenate(
        [
            reference.hub_means(transform.apply(taken), images.take(np.arange(block.start, block.stop)))
            for block, taken in vectors.blocks()
        ]
    )


class AdaptationExtender:
    """Computes the terms of images that are added to an adapted index."""

    def __init__(self, snapshot: Snapshot, info: AdaptationInfo, parameters: Parameters) -> None:
        self._folder, self._name, self._parameters = snapshot.folder / STATE, info.parameters, parameters
        ids = np.intersect1d(parameters.reference, snapshot.ids)
        self._records = records_of(snapshot, ids) if parameters.hub_weight else []
        self._transformed = (
            parameters.transform.apply(snapshot.descriptors(ids).numpy()) if parameters.hub_weight else None
        )

    def serves(self, info: AdaptationInfo) -> bool:
        """Whether an adaptation is the one that this was made for."""
        return info.parameters == self._name

    def extended(self, info: AdaptationInfo, segment: Segment) -> AdaptationInfo:
        """Add the terms of a new segment, whose ids follow all others or fill a gap between them."""
        vectors = np.array(segment.vectors)
        records = [segment.image(row).record for row in range(len(segment.ids))]
        new = image_terms(self._parameters, segment.ids, vectors, self._hub_means(vectors, records))
        return replace(info, terms=(*info.terms, save_terms(self._folder, new)))

    def _hub_means(
        self, vectors: Float32[np.ndarray, "rows dimension"], records: Sequence[ImageRecord]
    ) -> Float32[np.ndarray, " rows"] | None:
        if self._transformed is None:
            return None
        # All together, so that they lie in one plane.
        images, split = MapImages.of([*self._records, *records]), len(self._records)
        reference = Reference(self._transformed, images.take(np.arange(split)))
        transformed = self._parameters.transform.apply(vectors)
        return reference.hub_means(transformed, images.take(np.arange(split, len(images))))


def with_joined_terms(snapshot: Snapshot, info: AdaptationInfo, *, always: bool = False) -> AdaptationInfo:
    """Join many files of terms into one, without those of images that are gone."""
    if len(info.terms) <= (0 if always else _MAX_TERMS_FILES):
        return info
    folder = snapshot.folder / STATE
    known = ImageTerms.joined([read_terms(folder, file) for file in info.terms])
    stored = np.concatenate([np.empty(0, np.int64), *(segment.ids for segment in snapshot.segments)])
    kept = np.isin(known.ids, stored)
    return replace(info, terms=(save_terms(folder, ImageTerms(known.ids[kept], known.rows.take(kept))),))
