"""Fitting of an adaptation: choose pairs, test on held-out places, and learn the chosen steps from the whole map."""

from collections.abc import Sequence, Set
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float32, Int64

from vpr_dhe.index.adaptation.cross_validation import HUB_WEIGHT, Answers, Decision, decide
from vpr_dhe.index.adaptation.map_images import MapImages
from vpr_dhe.index.adaptation.pairs import MAX_PAIRS, Pairs, alike, pairs_of
from vpr_dhe.index.adaptation.report import AdaptationReport, PairSource
from vpr_dhe.index.adaptation.transform import VectorTransform
from vpr_dhe.index.adaptation.whitening import fit_whitening
from vpr_dhe.runtime.sampling import evenly_spread

# Numbers of images that the mean, and the test on held-out places, are computed from.
_MEAN_IMAGES, _TEST_IMAGES = 1 << 14, 1 << 14
_MIN_PAIRS = 50


@runtime_checkable
class Vectors(Protocol):
    """Extracted descriptors of a map, read on demand."""

    def __len__(self) -> int: ...

    def take(self, rows: Int64[np.ndarray, " chosen"]) -> Float32[np.ndarray, "chosen dimension"]:
        """Copy some rows."""
        ...


@dataclass(frozen=True)
class Fit:
    """Fitted adaptation; `transform` is None if no step helps on this map, `hub_weight` 0 without that step."""

    transform: VectorTransform | None
    hub_weight: float
    report: AdaptationReport


def fit(vectors: Vectors, images: MapImages, *, unit_norm: bool, verified: Pairs | None = None) -> Fit:
    """Learn from a map what changes without the place, as far as that helps on held-out places.

    Args:
        vectors: extracted descriptors.
        images: positions, headings and times, in the order of `vectors`.
        unit_norm: whether extracted vectors are compared by cosine rather than distance.
        verified: pairs that geometry has verified, for maps without positions.
    """
    source = source_of(images, verified)
    pairs = np.empty((0, 2), np.int64) if source is None else pairs_by(source, images, verified)
    if source is None or len(pairs) < _MIN_PAIRS:
        return Fit(None, 0.0, AdaptationReport(len(images), source, len(pairs)))
    decision = _test(vectors, images, source, verified, unit_norm=unit_norm)
    if decision is None:
        return Fit(None, 0.0, AdaptationReport(len(images), source, len(pairs)))
    chosen = frozenset(trial.step for trial in decision.trials if trial.chosen)
    transform, used = learned(vectors, pairs, chosen)
    report = AdaptationReport(len(images), source, used, decision.queries, decision.recall_at_1, decision.trials)
    return Fit(transform, HUB_WEIGHT if "hubs" in chosen else 0.0, report)


def learned(vectors: Vectors, pairs: Pairs, steps: Set[str]) -> tuple[VectorTransform | None, int]:
    """Learn some steps from pairs of images of one place; returns the transform, if any, and the number of pairs."""
    if not steps:
        return None, len(pairs)
    mean = vectors.take(evenly_spread(len(vectors), _MEAN_IMAGES)).mean(axis=0)
    if "whitening" not in steps:
        return VectorTransform.centring(mean), len(pairs)
    differences = _differences(vectors, pairs, mean)
    return fit_whitening(mean, differences), len(differences)


def source_of(images: MapImages, verified: Pairs | None = None) -> PairSource | None:
    """Best source of pairs that a map has."""
    if images.have_positions:
        return "positions"
    if images.have_times:
        return "times"
    return None if verified is None else "verified pairs"


def pairs_by(source: PairSource, images: MapImages, verified: Pairs | None = None) -> Pairs:
    """Pairs of images of one place by a source; `verified` ones are given."""
    if source == "verified pairs":
        assert verified is not None
        return verified[: 4 * MAX_PAIRS]
    return pairs_of(images, source)


def _differences(
    vectors: Vectors, pairs: Pairs, mean: Float32[np.ndarray, " dimension"]
) -> Float32[np.ndarray, "alike dimension"]:
    """Differences of the pairs that look alike, `MAX_PAIRS` at most."""
    pairs = pairs[evenly_spread(len(pairs), 4 * MAX_PAIRS)]
    kept: list[Float32[np.ndarray, "_kept dimension"]] = []
    for part in np.array_split(pairs, max(1, len(pairs) // MAX_PAIRS)):
        left, right = vectors.take(part[:, 0]), vectors.take(part[:, 1])
        kept.append((left - right)[alike(left, right, mean)])
        if sum(map(len, kept)) >= MAX_PAIRS:
            break
    return np.concatenate(kept)[:MAX_PAIRS]


def _test(
    vectors: Vectors, images: MapImages, source: PairSource, verified: Pairs | None, *, unit_norm: bool
) -> Decision | None:
    """Test on the map, or on contiguous parts of a large one."""
    if source == "times" and verified is None:
        return None
    rows = _contiguous_parts(images)
    number_of = {int(row): number for number, row in enumerate(rows)}
    if verified is not None:
        kept = [(number_of[a], number_of[b]) for a, b in verified.tolist() if a in number_of and b in number_of]
        verified = np.array(kept, np.int64).reshape(-1, 2)
    part = images.take(rows)
    taken = vectors.take(rows)

    def learn(chosen: Int64[np.ndarray, " _rows"]) -> Sequence[tuple[str, VectorTransform]]:
        mean = taken[chosen].mean(axis=0)
        centring = ("centring", VectorTransform.centring(mean))
        pairs = _pairs_among(part, chosen, source, verified)
        differences = _differences(_Array(taken), pairs, mean)
        return [centring, ("whitening", fit_whitening(mean, differences))] if len(differences) else [centring]

    answers = Answers(part, None if source == "positions" else verified)
    return decide(taken, answers, learn, unit_norm=unit_norm)


def _pairs_among(
    images: MapImages, rows: Int64[np.ndarray, " chosen"], source: PairSource, verified: Pairs | None
) -> Pairs:
    """Pairs of which both images are among some rows."""
    if source == "verified pairs":
        assert verified is not None
        return verified[np.isin(verified, rows).all(axis=1)]
    return rows[pairs_of(images.take(rows), source)]


def _contiguous_parts(images: MapImages) -> Int64[np.ndarray, " chosen"]:
    """Rows of contiguous parts, evenly spread over the map."""
    if len(images) <= _TEST_IMAGES:
        return np.arange(len(images))
    parts = images.blocks(16 * -(-len(images) // _TEST_IMAGES))
    chosen = evenly_spread(int(parts.max()) + 1, 16, with_last=False)
    return np.flatnonzero(np.isin(parts, chosen))


@dataclass(frozen=True)
class _Array:
    """Vectors in memory."""

    array: Float32[np.ndarray, "rows dimension"]

    def __len__(self) -> int:
        return len(self.array)

    def take(self, rows: Int64[np.ndarray, " chosen"]) -> Float32[np.ndarray, "chosen dimension"]:
        """Copy some rows."""
        return self.array[rows]
