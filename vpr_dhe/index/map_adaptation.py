"""Adaptation of an index to its map, with pairs verified by geometry where positions are unknown."""

from collections.abc import Sequence
from functools import partial

import numpy as np
from jaxtyping import Int64

from vpr_dhe.index.adaptation.report import AdaptationReport
from vpr_dhe.index.place_index import PlaceIndex
from vpr_dhe.index.snapshot import Snapshot
from vpr_dhe.index.vector_files import Announce, without_announcement
from vpr_dhe.records import Features, StartProgress, StrPath, without_progress
from vpr_dhe.runtime.choices import AUTO, Adapt, require_choice
from vpr_dhe.runtime.sampling import evenly_spread
from vpr_dhe.verification.build import build_estimator
from vpr_dhe.verification.estimators.base import View, matches_of_cells
from vpr_dhe.verification.names import MAGSAC
from vpr_dhe.verification.verifier import Verifier

# Images whose most similar ones are verified, their number, and the inliers of a pair that surely shows one place.
_ANCHORS, _CANDIDATES, _MIN_INLIERS = 512, 20, 60

OUTGROWN = 2
"""An index that has grown by this factor has seen too little of its map when it was adapted."""
_MIN_REFERENCE = 0.5


def adapt_index(
    index: StrPath | PlaceIndex,
    *,
    adapt: Adapt = AUTO,
    start_progress: StartProgress = without_progress,
    announce: Announce = without_announcement,
) -> AdaptationReport | None:
    """Adapt an index to its map as far as that helps, or drop its adaptation.

    Vectors are centred, whitened and corrected for hubs, each only if it helps on held-out places of the map.

    Args:
        index: folder of the index, or an open index.
        adapt: `off` searches vectors as they were extracted again; returns None.
        start_progress: called with the name and length of the one slow stage, if there is one.
        announce: called with the type and the number of vectors before each FAISS file is built.

    Raises:
        BadInputError: if the index holds no images.
        IndexBusyError: if another process is writing to the index.
        IndexFormatError, IndexDamagedError: if the index cannot be read.
    """
    require_choice(adapt, Adapt, "adapt")
    opened = index if isinstance(index, PlaceIndex) else PlaceIndex.open(index)
    opened.configure(adapt=adapt)
    return adapt_opened(opened, start_progress=start_progress, announce=announce)


def adapt_opened(
    index: PlaceIndex,
    *,
    start_progress: StartProgress = without_progress,
    announce: Announce = without_announcement,
) -> AdaptationReport | None:
    """Adapt an open index as its settings say; see `adapt_index`."""
    if index.manifest.settings.adapt == "off":
        index.unadapt(announce=announce)
        return None
    return index.adapt(partial(verified_pairs, start_progress=start_progress), announce=announce)


def bring_up_to_date(
    index: PlaceIndex,
    *,
    again: bool = False,
    start_progress: StartProgress = without_progress,
    announce: Announce = without_announcement,
) -> AdaptationReport | None:
    """Build the FAISS files of an index, after adapting it if its settings ask for that and it is not adapted yet.

    With `again`, an adapted index is adapted again. Returns the report of an adaptation, if there was one now.
    """
    is_adapted = index.manifest.adaptation is not None
    if len(index) and (is_adapted != (index.manifest.settings.adapt == AUTO) or (again and is_adapted)):
        return adapt_opened(index, start_progress=start_progress, announce=announce)
    index.build_vector_files(announce=announce)
    return None


def verified_pairs(
    snapshot: Snapshot, *, start_progress: StartProgress = without_progress
) -> Int64[np.ndarray, "pairs 2"]:
    """Pairs of images, by row among all, of which `magsac` finds that they show one place.

    The most similar images of 512 images, evenly spread, are verified. Pixels are not needed.
    """
    ids, verifier = snapshot.ids, Verifier(build_estimator(MAGSAC))
    anchors = ids[evenly_spread(len(ids), _ANCHORS)]
    progress = start_progress("verifying pairs of the map", len(anchors))
    found: list[tuple[int, int]] = []
    for anchor in anchors.tolist():
        descriptor, code = snapshot.descriptors([anchor]), snapshot.codes([anchor])
        near = snapshot.search(descriptor, _CANDIDATES + 1, codes=code, adapted=False).ids[0]
        others = [id for id in near.tolist() if id != anchor]
        inliers = _inliers(snapshot, verifier, anchor, others)
        found += [(anchor, id) for id, count in zip(others, inliers, strict=True) if count >= _MIN_INLIERS]
        progress(1)
    pairs = np.searchsorted(ids, np.array(found, np.int64).reshape(-1, 2))
    return np.unique(np.sort(pairs, axis=1), axis=0).reshape(-1, 2)


def is_outgrown(index: PlaceIndex) -> bool:
    """Whether an adapted index has at least doubled since, or has lost half of the reference for hubs."""
    adaptation, opened = index.manifest.adaptation, index.snapshot.adaptation
    if adaptation is None:
        return False
    left = 1.0 if opened is None else float(np.isin(opened.parameters.reference, index.ids).mean())
    return len(index) >= OUTGROWN * max(1, adaptation.report.images) or left < _MIN_REFERENCE


def _inliers(snapshot: Snapshot, verifier: Verifier, anchor: int, ids: Sequence[int]) -> list[int]:
    """Inliers of an image with each of some others, by their local maps."""
    spec, frame = snapshot.manifest.spec, snapshot.frame(anchor)
    query = Features(snapshot.descriptors([anchor])[0], snapshot.local_maps([anchor])[0], spec.grid, frame)
    matches_of = matches_of_cells(lambda: snapshot.stored_maps(ids).match(query.local_map), spec)
    views = [View(snapshot.frame(id), matches=partial(matches_of, number)) for number, id in enumerate(ids)]
    return [found.inliers for found in verifier.verify(View(frame, None, lambda: query), views)]
