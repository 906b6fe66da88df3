"""Counting inliers: one score for all estimators."""

import threading

import cv2
import numpy as np
import pytest
import torch

from vpr_dhe.errors import VerifierError
from vpr_dhe.records import Frame, Matches, Size
from vpr_dhe.verification.build import build_estimator
from vpr_dhe.verification.estimators.base import Homographies, HomographyEstimator, View
from vpr_dhe.verification.estimators.registry import Resources
from vpr_dhe.verification.verifier import SHORTLIST_SIZE, Verifier

SMALL, LARGE = Size(100, 100), Size(200, 200)


class Fixed(HomographyEstimator):
    """Knows its answers beforehand."""

    name = "fixed"

    def __init__(self, matrices: list[torch.Tensor], valid: list[bool]) -> None:
        self._answer = Homographies.of(torch.stack(matrices), torch.tensor(valid))

    def estimate(self, query, candidates) -> Homographies:
        return self._answer


def view(frame: Frame, matches: Matches | None = None) -> View:
    return View(frame, lambda: np.zeros((1, 1, 3), np.uint8), matches=None if matches is None else lambda: matches)


def shifted(errors_px: list[float], tolerance_px: float = 3.0) -> Matches:
    """Matches on a line, each displaced in the candidate by its error."""
    count = len(errors_px)
    source = torch.stack([torch.arange(count) * 5.0, torch.full((count,), 7.0)], dim=1).double()
    target = source + torch.tensor([[0.0, error] for error in errors_px], dtype=torch.float64).reshape(count, 2)
    return Matches(source, target, torch.ones(count), tolerance_px)


IDENTITY = torch.eye(3, dtype=torch.float64)
FRAME = Frame(SMALL, SMALL)


def test_counts_matches_below_the_threshold_of_each_candidate():
    candidates = [view(FRAME, shifted([0, 1, 2.9, 3, 4])), view(FRAME, shifted([0, 0, 0, 0, 7, 0, 0]))]
    results = Verifier(Fixed([IDENTITY, IDENTITY], [True, True])).verify(view(FRAME), candidates)
    assert [result.inliers for result in results] == [3, 6]
    assert [result.score for result in results] == [3.0, 6.0]
    assert results[0].query_points.tolist() == [[0, 7], [5, 7], [10, 7]]
    assert results[1].query_points[:, 0].tolist() == [0, 5, 10, 15, 25, 30]


def test_an_explicit_threshold_wins_over_the_tolerance():
    candidates = [view(FRAME, shifted([0, 1, 2, 5, 9]))]
    assert Verifier(Fixed([IDENTITY], [True]), 6.0).verify(view(FRAME), candidates)[0].inliers == 4


def test_the_threshold_is_measured_in_the_input_of_the_candidate():
    # The original is twice as large as the input: an error of 2 input pixels is 4 original ones.
    enlarged = Frame(LARGE, SMALL)
    double = torch.diag(torch.tensor([2.0, 2.0, 1.0], dtype=torch.float64))
    double[0, 2] = double[1, 2] = 0.5
    results = Verifier(Fixed([double], [True])).verify(view(FRAME), [view(enlarged, shifted([0, 0, 0, 2, 2, 4]))])
    assert results[0].inliers == 5
    # Points come back in original pixels.
    assert results[0].candidate_points[1].tolist() == [10.5, 14.5]


def test_failures_and_too_few_matches_score_nothing():
    candidates = [view(FRAME, shifted([0] * 8)), view(FRAME, shifted([0, 0, 0])), view(FRAME, shifted([]))]
    results = Verifier(Fixed([IDENTITY] * 3, [False, True, True])).verify(view(FRAME), candidates)
    for result in results:
        assert (result.homography, result.inliers, result.score) == (None, 0, 0.0)


def unmoved(count: int) -> Matches:
    """Exact matches in general position."""
    points = torch.from_numpy(np.random.default_rng(count).uniform(0, 99, (count, 2)))
    return Matches(points, points, torch.ones(count), 2.0)


@pytest.mark.parametrize("shortlist_size", [SHORTLIST_SIZE, None])
def test_candidates_with_few_matches_stand_beside_many_others(shortlist_size):
    counts = [0, 19, 3, *range(10, 60)]
    candidates = [view(FRAME, unmoved(count)) for count in counts]
    found = Verifier(build_estimator("magsac"), shortlist_size=shortlist_size).verify(view(FRAME), candidates)
    assert [result.inliers for result in found] == [count if count > 3 else 0 for count in counts]
    assert [len(result.query_points) for result in found] == [result.inliers for result in found]


def test_nothing_to_verify():
    assert Verifier(Fixed([IDENTITY], [True])).verify(view(FRAME), []) == []


class Patient(HomographyEstimator):
    """Finds a larger part of the matches to agree in the full pass; counts the candidates it was asked about."""

    name = "patient"

    def __init__(self, coarse_pass: "Patient | None" = None, *, off_px: float = 0.0) -> None:
        self._coarse_pass, self._off_px, self.asked = coarse_pass, off_px, 0

    @property
    def coarse_pass(self) -> "Patient | None":
        return self._coarse_pass

    def estimate(self, query, candidates) -> Homographies:
        self.asked += len(candidates)
        found = IDENTITY.clone()
        found[1, 2] = self._off_px
        return Homographies.of(found.expand(len(candidates), 3, 3), torch.ones(len(candidates), dtype=torch.bool))


def test_only_the_shortlist_of_many_candidates_gets_the_full_estimate():
    """A coarse pass that is off by 1.5 px misses a third of the matches."""
    candidates = [view(FRAME, shifted([0, -2, 2] * (n + 2))) for n in range(100)]
    hasty = Patient(off_px=-1.5)
    thorough = Patient(hasty)
    found = Verifier(thorough).verify(view(FRAME), candidates)
    assert (hasty.asked, thorough.asked) == (100, SHORTLIST_SIZE)
    counts = [result.inliers for result in found]
    assert counts == [(3 if n >= 100 - SHORTLIST_SIZE else 2) * (n + 2) for n in range(100)]


@pytest.mark.parametrize(("count", "shortlist_size"), [(SHORTLIST_SIZE, SHORTLIST_SIZE), (100, None)])
def test_few_candidates_and_all_on_demand_get_the_full_estimate_at_once(count, shortlist_size):
    hasty = Patient(off_px=-1.5)
    candidates = [view(FRAME, shifted([0] * 8))] * count
    Verifier(Patient(hasty), shortlist_size=shortlist_size).verify(view(FRAME), candidates)
    assert hasty.asked == 0


def test_a_full_estimate_that_finds_less_changes_nothing():
    candidates = [view(FRAME, shifted([0] * 8)) for _ in range(2 * SHORTLIST_SIZE)]
    found = Verifier(Patient(Patient(), off_px=9.0)).verify(view(FRAME), candidates)
    assert {result.inliers for result in found} == {8}


@pytest.mark.parametrize("name", ["magsac", "ransac", "accurate", "poselib"])
def test_a_coarse_pass_is_the_same_method_with_fewer_iterations(name):
    random, truth = np.random.default_rng(4), np.array([[1.1, 0.1, 5.0], [-0.1, 0.9, 8.0], [1e-4, -1e-4, 1.0]])
    source = random.uniform(0, 300, (120, 2))
    target = cv2.perspectiveTransform(source[None], truth)[0]
    target[40:] = random.uniform(0, 300, (80, 2))
    whole = build_estimator(name)
    first = whole.coarse_pass
    assert isinstance(first, type(whole))
    assert (first.name, first.iterations < whole.iterations) == (name, True)
    found = first.fit(source, target, 2.0)
    assert np.abs(cv2.perspectiveTransform(source[None, :40], found)[0] - target[:40]).max() < 1


def test_matches_nobody_asked_for_before_are_made_where_all_cores_can_help():
    asked_in: list[str] = []

    def matches() -> Matches:
        asked_in.append(threading.current_thread().name)
        return shifted([0, 0, 0, 0])

    before = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        candidate = View(FRAME, lambda: np.zeros((1, 1, 3), np.uint8), matches=matches)
        Verifier(Fixed([IDENTITY], [True])).verify(view(FRAME), [candidate])
    finally:
        torch.set_num_threads(before)
    assert asked_in == [threading.current_thread().name]


def test_8_bits_are_refused_where_they_would_change_nothing():
    with pytest.raises(
        VerifierError, match="magsac has no 8-bit integers; use --precision fp32 or bf16, or one of: dhe"
    ):
        build_estimator("magsac", Resources(precision="int8"))
