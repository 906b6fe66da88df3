"""Evaluation of alignment methods on image pairs with known homographies."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, median
from time import perf_counter

import numpy as np

from vpr_dhe.datasets.pairs.base import HomographyPair, PairSet
from vpr_dhe.errors import BadInputError
from vpr_dhe.evaluation.alignment_metrics import (
    PCK_THRESHOLDS_PX,
    HomographyFlow,
    Pixels,
    corner_error_auc,
    corner_error_px,
    end_point_error,
    flow_of_alignment,
    flow_of_homography,
    mean_corner_error_of_succeeded_px,
    percentage_of_correct_keypoints,
)
from vpr_dhe.images.loading import image_size
from vpr_dhe.records import Image, Progress, Size, Verification

SPARSE = "sparse keypoints"
Aligner = Callable[[Image, Image], Verification]


@dataclass(frozen=True)
class PairScore:
    """Errors of one method on one pair; infinite where its estimate failed.

    `end_point_error_px` and `correct_percent` (by threshold in pixels) are means over the pixels of A that truly lie
    inside B; None if there are none.
    """

    name: str
    group: str
    corner_error_px: float
    end_point_error_px: float | None
    correct_percent: dict[Pixels, float] | None
    elapsed_ms: float


@dataclass(frozen=True)
class AlignmentScores:
    """Scores of one method over several pairs of equal weight.

    Over all pairs, with infinite errors for failed ones: `auc_percent` by threshold, `median_px` (infinite if the
    median pair failed) and `correct_percent` by threshold. Over the pairs that did not fail: `mace_px` and `aepe_px`,
    None if all failed. Pairs without any overlap are left out of `aepe_px` and `correct_percent`, which is empty if
    none remains.
    """

    num_pairs: int
    failed: int
    auc_percent: dict[Pixels, float]
    mace_px: float | None
    median_px: float
    aepe_px: float | None
    correct_percent: dict[Pixels, float]


@dataclass(frozen=True)
class AlignmentResult:
    """Result of one method on one pair set: over all pairs, by group if the set has groups, and pair by pair.

    `median_ms` is the median wall-clock time of one pair without decoding.
    """

    method: str
    overall: AlignmentScores
    groups: dict[str, AlignmentScores]
    median_ms: float
    pairs: tuple[PairScore, ...]


@dataclass(frozen=True)
class PairEvaluation:
    """Results of all methods on one pair set, in the given order; `features` names what they matched."""

    dataset: str
    protocol: str
    features: str
    num_pairs: int
    methods: tuple[AlignmentResult, ...]


@dataclass(frozen=True)
class _Truth:
    """Ground truth of one pair."""

    pair: HomographyPair
    size_a: Size
    size_b: Size
    flow: HomographyFlow


def evaluate_pair_set(
    pairs: PairSet,
    aligners: Mapping[str, Aligner],
    *,
    features: str = SPARSE,
    progress: Progress = lambda _: None,
) -> PairEvaluation:
    """Align each pair by each method and compare with its homography; `progress` is called after each pair.

    Raises:
        ImageError: if an image is damaged; scores over a part of a set cannot be compared with those over all of it.
        BadInputError: if no method is given.
    """
    if not aligners:
        raise BadInputError("no alignment method to evaluate; name at least one")
    scores: dict[str, list[PairScore]] = {method: [] for method in aligners}
    for pair in pairs.pairs:
        image_a, image_b = pair.image_a(), pair.image_b()
        size_a, size_b = image_size(image_a), image_size(image_b)
        truth = _Truth(pair, size_a, size_b, flow_of_homography(pair.homography, size_a, size_b))
        for method, aligner in aligners.items():
            started = perf_counter()
            found = aligner(image_a, image_b)
            elapsed_ms = 1000 * (perf_counter() - started)
            scores[method].append(_score(truth, found, elapsed_ms))
        progress(1)
    results = tuple(_result(method, of_method) for method, of_method in scores.items())
    return PairEvaluation(pairs.name, pairs.protocol, features, len(pairs.pairs), results)


def _score(truth: _Truth, found: Verification, elapsed_ms: float) -> PairScore:
    pair = truth.pair
    flow_error_px, correct = _flow_score(truth, found)
    error_px = corner_error_px(found.homography, pair.homography, truth.size_a)
    return PairScore(pair.name, pair.group, error_px, flow_error_px, correct, elapsed_ms)


def _flow_score(truth: _Truth, found: Verification) -> tuple[float | None, dict[Pixels, float] | None]:
    """Score the dense flow of a method, or the flow of its homography if it gives none."""
    true_flow, valid = truth.flow
    if not valid.any():
        return None, None
    if found.homography is None:
        return float("inf"), dict.fromkeys(PCK_THRESHOLDS_PX, 0.0)
    if found.details is not None and found.details.alignment is not None:
        height, width = valid.shape
        flow = flow_of_alignment(found.details.alignment, Size(width, height))
    else:
        flow = flow_of_homography(found.homography, truth.size_a, truth.size_b).displacement_px
    return end_point_error(flow, true_flow, valid), percentage_of_correct_keypoints(flow, true_flow, valid)


def _result(method: str, scores: Sequence[PairScore]) -> AlignmentResult:
    names = sorted({score.group for score in scores} - {""})
    groups = {name: _summary([score for score in scores if score.group == name]) for name in names}
    median_ms = median(score.elapsed_ms for score in scores)
    return AlignmentResult(method, _summary(scores), groups, median_ms, tuple(scores))


def _summary(scores: Sequence[PairScore]) -> AlignmentScores:
    errors_px = [score.corner_error_px for score in scores]
    flow_errors_px = [
        score.end_point_error_px
        for score in scores
        if score.end_point_error_px is not None and np.isfinite(score.end_point_error_px)
    ]
    correct = [score.correct_percent for score in scores if score.correct_percent is not None]
    return AlignmentScores(
        num_pairs=len(scores),
        failed=int(np.isinf(errors_px).sum()),
        auc_percent=corner_error_auc(errors_px),
        mace_px=mean_corner_error_of_succeeded_px(errors_px),
        median_px=median(errors_px),
        aepe_px=fmean(flow_errors_px) if flow_errors_px else None,
        correct_percent={
            threshold_px: fmean(percent[threshold_px] for percent in correct)
            for threshold_px in (PCK_THRESHOLDS_PX if correct else ())
        },
    )
