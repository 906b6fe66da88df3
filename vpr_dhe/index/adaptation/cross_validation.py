"""Two-fold cross-validation of an adaptation over the places of a map.

Images of the tested half are queries to that half. Positives and excluded images of each query follow from positions,
or from verified pairs: images of the same spot and of the same moments are excluded.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Bool, Float32, Float64, Int64

from vpr_dhe.index.adaptation.hubs import Reference
from vpr_dhe.index.adaptation.map_images import SPOT_M, MapImages, mask_of
from vpr_dhe.index.adaptation.pairs import Pairs
from vpr_dhe.index.adaptation.report import Trial
from vpr_dhe.index.adaptation.transform import VectorTransform
from vpr_dhe.runtime.sampling import evenly_spread

HUB_WEIGHT = 0.5
"""Share of a hub's mean similarity that is subtracted; docs/experiments/adaptation.md compares others."""

# Fewest images with a positive, and fewest places of these, that a decision rests on.
_MIN_QUERIES, _MIN_PLACES = 50, 10

# Gains up to this many standard errors are chance: one-sided, 5 %.
_BAR = 1.645
# Blocks of places that belong to the halves in turn.
_BLOCKS = 8
_MAX_QUERIES = 1024
_CELL_M, _IMAGES_PER_CELL = 50.0, 16

Learn = Callable[[Int64[np.ndarray, " _rows"]], Sequence[tuple[str, VectorTransform]]]
"""Learns the transforms to try, by name, from some images of a map."""


@dataclass(frozen=True)
class Decision:
    """All trials of a map; `recall_at_1` is that of extracted vectors, over `queries`."""

    queries: int
    recall_at_1: float
    trials: tuple[Trial, ...]


@dataclass(frozen=True)
class Answers:
    """Right and excluded images of each image of a map, as masks that take memory for one half at a time."""

    images: MapImages
    verified: Pairs | None = None

    def of(
        self, rows: Int64[np.ndarray, " half"], queries: Int64[np.ndarray, " queries"]
    ) -> tuple[Bool[np.ndarray, "queries half"], Bool[np.ndarray, "queries half"]]:
        """Masks of right and of excluded answers among `rows`; `queries` are numbers of these rows."""
        half = self.images.take(rows)
        excluded = mask_of(half.recent(queries), len(half))
        if self.verified is None:
            excluded |= mask_of(half.near(queries, SPOT_M), len(half))
            return mask_of(half.near(queries), len(half)) & ~excluded, excluded
        return _verified_mask(self.verified, rows, queries) & ~excluded, excluded


def decide(
    vectors: Float32[np.ndarray, "images dimension"], answers: Answers, learn: Learn, *, unit_norm: bool
) -> Decision | None:
    """Try centring, whitening and the correction of hubs; None if too few images have a positive.

    Args:
        vectors: extracted descriptors of a map, or of contiguous parts of a large one.
        answers: of the same images.
        learn: learns the transforms from images of one half.
        unit_norm: whether extracted vectors are compared by cosine rather than distance.
    """
    halves = list(_halves(answers, learn, vectors, unit_norm))
    places = np.concatenate([half.places for half in halves])
    if len(places) < _MIN_QUERIES or len(np.unique(places)) < _MIN_PLACES:
        return None
    # A half without pairs that look alike teaches no whitening.
    names = [name for name in halves[0].ranks if all(name in half.ranks for half in halves)]
    ranks = {name: np.concatenate([half.ranks[name] for half in halves]) for name in names}
    base, trials = _best(ranks, "extracted", [name for name in ranks if "hubs" not in name][1:], places)
    hubs = f"{base} hubs"
    if hubs in ranks:
        _, (trial,) = _best(ranks, base, [hubs], places)
        trials.append(replace(trial, step="hubs"))
    return Decision(len(places), _recall_at_1(ranks["extracted"]), tuple(trials))


@dataclass(frozen=True)
class _Half:
    """Ranks of the first positives of each query under each variant, and the place of each query."""

    places: Int64[np.ndarray, " queries"]
    ranks: dict[str, Int64[np.ndarray, " queries"]]


def _halves(
    answers: Answers, learn: Learn, vectors: Float32[np.ndarray, "images dimension"], unit_norm: bool
) -> Iterator[_Half]:
    blocks = answers.images.blocks(_BLOCKS) % 2
    cells = _cells(answers.images)
    for tested in (0, 1):
        rows = np.flatnonzero(blocks == tested)
        queries = evenly_spread(len(rows), 2 * _MAX_QUERIES)
        right, excluded = answers.of(rows, queries)
        answered = np.flatnonzero(right.any(axis=1))[:: max(1, int(right.any(axis=1).sum()) // _MAX_QUERIES)]
        queries, right, excluded = queries[answered], right[answered], excluded[answered]
        half = vectors[rows]
        ranks = {"extracted": _ranks(_compared(half[queries], half, unit_norm=unit_norm), right, excluded)}
        learning = np.flatnonzero(blocks != tested)
        for name, transform in learn(learning):
            transformed = transform.apply(half)
            similarities = transformed[queries] @ transformed.T
            ranks[name] = _ranks(similarities, right, excluded)
            if answers.verified is None:
                # Among images of the learning half: a query among them would raise the means of its own wrong answers.
                reference = Reference(transform.apply(vectors[learning]), answers.images.take(learning))
                hubs = reference.hub_means(transformed, answers.images.take(rows))
                ranks[f"{name} hubs"] = _ranks(similarities - HUB_WEIGHT * hubs, right, excluded)
        # Places of the halves are distinct but for those at their borders.
        yield _Half(cells[rows][queries], ranks)


def _best(
    ranks: dict[str, Int64[np.ndarray, " queries"]],
    base: str,
    names: Sequence[str],
    places: Int64[np.ndarray, " queries"],
) -> tuple[str, list[Trial]]:
    """Compare alternatives with a base; returns the best that is beyond chance, or the base, and all trials."""
    trials = {name: _trial(name, ranks[name], ranks[base], places) for name in names}
    passed = [name for name in names if trials[name].gain > _BAR * trials[name].error]
    best = max(passed, key=lambda name: trials[name].gain, default=base)
    return best, [replace(trial, chosen=name == best) for name, trial in trials.items()]


def _trial(
    name: str,
    ranks: Int64[np.ndarray, " queries"],
    base: Int64[np.ndarray, " queries"],
    places: Int64[np.ndarray, " queries"],
) -> Trial:
    gains = 100 * (1 / ranks - 1 / base)
    return Trial(name, _recall_at_1(ranks), float(gains.mean()), standard_error(gains, places))


def standard_error(values: Float64[np.ndarray, " values"], groups: Int64[np.ndarray, " values"]) -> float:
    """Standard error of a mean whose values are independent between groups only, of which there are at least two.

    Source: Liang and Zeger, "Longitudinal data analysis using generalized linear models", Biometrika 1986 (sandwich
    estimator).
    """
    _, numbers = np.unique(groups, return_inverse=True)
    sums = np.bincount(numbers.ravel(), values - values.mean())
    return float(np.sqrt(len(sums) / (len(sums) - 1) * np.sum(sums**2)) / len(values))


def _recall_at_1(ranks: Int64[np.ndarray, " queries"]) -> float:
    return 100 * float(np.mean(ranks == 1))


def _ranks(
    similarities: Float32[np.ndarray, "queries images"],
    right: Bool[np.ndarray, "queries images"],
    excluded: Bool[np.ndarray, "queries images"],
) -> Int64[np.ndarray, " queries"]:
    """Rank, from 1, of the first positives of each query."""
    best = np.where(right, similarities, -np.inf).max(axis=1, keepdims=True)
    return 1 + ((similarities > best) & ~right & ~excluded).sum(axis=1)


def _compared(
    queries: Float32[np.ndarray, "queries dimension"], rows: Float32[np.ndarray, "rows dimension"], *, unit_norm: bool
) -> Float32[np.ndarray, "queries rows"]:
    """Compute the order of extracted vectors by cosine, or by distance."""
    products = queries @ rows.T
    return products if unit_norm else products - np.einsum("rd,rd->r", rows, rows) / 2


def _cells(images: MapImages) -> Int64[np.ndarray, " images"]:
    """Number the places: squares of 50 m, or runs of 16 images."""
    if images.have_positions:
        squares = np.floor(images.points_m / _CELL_M).astype(np.int64)
        return np.unique(squares, axis=0, return_inverse=True)[1].ravel()
    return images.blocks(max(1, len(images) // _IMAGES_PER_CELL))


def _verified_mask(
    verified: Pairs, rows: Int64[np.ndarray, " half"], queries: Int64[np.ndarray, " queries"]
) -> Bool[np.ndarray, "queries half"]:
    """Mask of the rows that a verified pair joins with each query."""
    joined = np.zeros((len(queries), len(rows)), bool)
    row_of = {int(row): number for number, row in enumerate(rows)}
    query_of = {int(rows[query]): number for number, query in enumerate(queries)}
    for left, right in [*verified.tolist(), *verified[:, ::-1].tolist()]:
        if left in query_of and right in row_of:
            joined[query_of[left], row_of[right]] = True
    return joined
