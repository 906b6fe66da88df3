"""Choice of the smallest codec that preserves the answers of an index."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import combinations
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor

from vpr_dhe.errors import ModelError
from vpr_dhe.features.base import ExtractorSpec
from vpr_dhe.geometry.matching import MutualNeighbours, mutual_nearest_neighbours
from vpr_dhe.index.codec_fidelity import MAX_INLIER_DIFFERENCE, CodecTrials, Fidelity
from vpr_dhe.index.codecs import CODECS, LocalMapCodec, fit_codec, unsupported_reason
from vpr_dhe.index.codecs.float16 import Float16Codec
from vpr_dhe.index.stored_maps import StoredMaps
from vpr_dhe.models.catalogue import is_export, open_model
from vpr_dhe.models.exported_model import ExportedModel, load_exported
from vpr_dhe.models.hub import cached
from vpr_dhe.models.model_file import ModelFile
from vpr_dhe.models.names import BUNDLED
from vpr_dhe.records import Features, Frame
from vpr_dhe.runtime.sampling import evenly_spread
from vpr_dhe.verification.estimators.base import View, matches_of_cells
from vpr_dhe.verification.estimators.opencv import OpenCvEstimator
from vpr_dhe.verification.names import DEFAULT_VERIFIER, DHE
from vpr_dhe.verification.verifier import Verifier

# Candidates whose order counts, and images that this needs: a query besides.
_TOP = 10
MIN_IMAGES = _TOP + 1
"""Images that `auto` needs to choose another codec than the fallback."""
# Images that act as queries, and neighbours of each: 200 verifications per codec take a second or two on one core.
_QUERIES, _CANDIDATES = 10, 20
# A network takes 0.05 to 0.5 seconds per verification.
_QUERIES_OF_NETWORK = 4


@dataclass(frozen=True)
class CodecChoice:
    """A codec, and the measurements on which `auto` chose it; None if nothing was measured."""

    codec: LocalMapCodec
    trials: CodecTrials | None = None


@dataclass(frozen=True)
class _Shortlist:
    """A query, the rows of its candidates in retrieval order, and their inliers without a codec."""

    query: Features
    rows: Int64[Tensor, " candidates"]
    inliers: Int64[np.ndarray, " candidates"]


def choose_codec(
    local_maps: Float[Tensor, "maps cells dimension"],
    descriptors: Float[Tensor, "maps descriptor_dimension"],
    spec: ExtractorSpec,
    stored: LocalMapCodec | None = None,
) -> CodecChoice:
    """Choose the smallest codec that preserves order and inliers of verified candidates.

    Up to ten images (four for a network), evenly spread, act as queries, and the 20 nearest by descriptor of each, or
    all, as its candidates. The model's own verifier (`own_verifier`) counts the inliers of each pair, with the
    candidates' local maps as they are and encoded; queries are never encoded. A codec is kept if

    - 98 % of pairs of candidates keep their order. They are those of a query's first ten, ranked by inliers without a
      codec, ties in retrieval order; and only those whose inliers a and b differ by more than the standard deviation of
      two counts, sqrt(a + b). Smaller differences are chance (`docs/experiments/notes.md`).
    - inliers differ by at most 2 %: the sum of absolute differences, relative to the sum without a codec.

    Without such a codec, without any inliers, and with fewer than 11 images, which have no first ten and are not
    measured, the fallback is kept: float16 or, for maps that are stored already, their codec, since a finer one would
    restore nothing.

    Args:
        local_maps: local maps of at least one image, best spread over the index.
        descriptors: global descriptors of the same images.
        spec: spec of their extractor.
        stored: codec that the local maps were stored by; None if they come from the extractor.
    """
    fallback = fit_codec(Float16Codec.name, local_maps) if stored is None else stored
    if len(local_maps) < MIN_IMAGES:
        return CodecChoice(fallback)
    others = [fit_codec(name, local_maps) for name in CODECS if not unsupported_reason(name, local_maps)]
    smaller = [codec for codec in others if codec.record_bytes < fallback.record_bytes]
    local_maps, verifier = local_maps.float(), own_verifier(spec)
    shortlists = _shortlists(local_maps, descriptors, spec, verifier)
    # Maps that a coarser codec has stored already say nothing about it.
    measured = [fallback, *smaller] if fallback.name == Float16Codec.name else smaller
    fidelity = {codec.name: _fidelity(codec, local_maps, shortlists, spec, verifier) for codec in measured}
    trials = CodecTrials(
        verifier.estimator.name,
        sum(len(shortlist.rows) for shortlist in shortlists),
        sum(int(shortlist.inliers.sum()) for shortlist in shortlists),
        None if stored is None else stored.name,
        fidelity,
    )
    faithful = [codec for codec in smaller if trials.inliers > 0 and fidelity[codec.name].suffices]
    return CodecChoice(min([*faithful, fallback], key=lambda codec: codec.record_bytes), trials)


def own_verifier(spec: ExtractorSpec) -> Verifier:
    """Verifier of a model: `dhe` if it has such a head, otherwise the default.

    A model that is not on this machine, or has no file, gets the default.
    """
    try:
        model = _model(spec.model)
        if model is not None and model.architecture.head == DHE:
            from vpr_dhe.verification.estimators.dhe import DheEstimator

            return Verifier(DheEstimator.from_model(model))
    except ModelError:  # such as a file that was moved
        pass
    return Verifier(OpenCvEstimator(DEFAULT_VERIFIER))


def _model(name: str) -> ModelFile | ExportedModel | None:
    if is_export(name):
        return load_exported(Path(name))
    on_disk = name in BUNDLED or cached(name) is not None or Path(name).is_file()
    return open_model(name) if on_disk else None


def _shortlists(
    local_maps: Float[Tensor, "maps cells dimension"],
    descriptors: Float[Tensor, "maps descriptor_dimension"],
    spec: ExtractorSpec,
    verifier: Verifier,
) -> list[_Shortlist]:
    """Verify evenly spaced images against their nearest neighbours, without a codec."""
    count, queries_asked = len(descriptors), _QUERIES_OF_NETWORK if _uses_network(verifier) else _QUERIES
    queries = torch.from_numpy(evenly_spread(count, queries_asked))
    distances = torch.cdist(descriptors[queries].float(), descriptors.float())
    distances[torch.arange(len(queries)), queries] = torch.inf
    nearest = distances.topk(min(_CANDIDATES, count - 1), largest=False).indices
    shortlists: list[_Shortlist] = []
    for number, rows in zip(queries.tolist(), nearest, strict=True):
        query = Features(descriptors[number], local_maps[number], spec.grid, Frame(spec.input_size, spec.input_size))
        maps = local_maps[rows]
        match = partial(mutual_nearest_neighbours, query.local_map, maps)
        shortlists.append(_Shortlist(query, rows, _inliers(query, maps, match, spec, verifier)))
    return shortlists


def _inliers(
    query: Features,
    maps: Float[Tensor, "candidates cells dimension"],
    match: Callable[[], MutualNeighbours],
    spec: ExtractorSpec,
    verifier: Verifier,
) -> Int64[np.ndarray, " candidates"]:
    """Count the inliers of a query with each map; sizes of original images do not matter to them."""
    matches_of = matches_of_cells(match, spec)
    views = [
        View(query.frame, None, partial(replace, query, local_map=local_map), partial(matches_of, number))
        for number, local_map in enumerate(maps)
    ]
    verified = verifier.verify(View(query.frame, None, lambda: query), views)
    return np.array([verification.inliers for verification in verified], np.int64)


def _fidelity(
    codec: LocalMapCodec,
    local_maps: Float[Tensor, "maps cells dimension"],
    shortlists: Sequence[_Shortlist],
    spec: ExtractorSpec,
    verifier: Verifier,
) -> Fidelity:
    """Compare inliers with a codec, matched as in an index, with those without.

    A codec that must fail whatever the other queries give is not measured on them.
    """
    exact, coded = [shortlist.inliers for shortlist in shortlists], list[Int64[np.ndarray, " _"]]()
    total, changed = sum(int(counts.sum()) for counts in exact), 0
    for shortlist in shortlists:
        records = np.stack([np.frombuffer(codec.encode(local_maps[row]), np.uint8) for row in shortlist.rows.tolist()])
        maps, query = StoredMaps(codec, records), shortlist.query
        coded.append(_inliers(query, maps.decoded, partial(maps.match, query.local_map), spec, verifier))
        changed += int(np.abs(coded[-1] - shortlist.inliers).sum())
        if changed > MAX_INLIER_DIFFERENCE * total:
            break
    return fidelity_of(exact[: len(coded)], coded)


def _uses_network(verifier: Verifier) -> bool:
    from vpr_dhe.verification.estimators.dhe import DheEstimator

    return isinstance(verifier.estimator, DheEstimator)


def fidelity_of(exact: Sequence[Int64[np.ndarray, " _"]], coded: Sequence[Int64[np.ndarray, " _"]]) -> Fidelity:
    """Fidelity by the inliers of each query's candidates, in retrieval order, without and with a codec.

    Without any pairs or inliers, nothing differs.
    """
    kept = pairs = 0
    for before, after in zip(exact, coded, strict=True):
        first, place = np.argsort(-before, kind="stable")[:_TOP], np.argsort(np.argsort(-after, kind="stable"))
        for better, worse in combinations(first.tolist(), 2):
            if before[better] - before[worse] > math.sqrt(before[better] + before[worse]):
                pairs += 1
                kept += int(place[better] < place[worse])
    total = sum(int(before.sum()) for before in exact)
    changed = sum(int(np.abs(before - after).sum()) for before, after in zip(exact, coded, strict=True))
    return Fidelity(kept / pairs if pairs else 1.0, changed / total if total else 0.0)
