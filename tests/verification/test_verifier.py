"""Counting inliers: one score for all estimators."""

import threading
from dataclasses import replace

import numpy as np
import pytest
import torch

from vpr_dhe.errors import VerifierError
from vpr_dhe.models.network_file import network_file
from vpr_dhe.records import Frame, Matches, Size, Verification
from vpr_dhe.verification.alignment import _unless_by_chance, build_aligner, build_aligners, load_resources
from vpr_dhe.verification.build import build_estimator
from vpr_dhe.verification.estimators.base import Homographies, HomographyEstimator, View
from vpr_dhe.verification.estimators.cross_modal.registration.networks import RegistrationSettings, build_registration
from vpr_dhe.verification.estimators.resources import Resources
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


def test_the_weight_of_inliers_is_their_mean_squared_similarity():
    matches = replace(shifted([0, 1, 9, 0, 0]), similarity=torch.tensor([0.5, 1.0, 0.9, 0.2, 0.4]))
    results = Verifier(Fixed([IDENTITY] * 2, [True, False])).verify(view(FRAME), [view(FRAME, matches)] * 2)
    assert [result.inliers for result in results] == [4, 0]
    assert results[0].inlier_weight == pytest.approx((0.25 + 1 + 0.04 + 0.16) / 4)


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


def test_candidates_with_few_matches_stand_beside_many_others():
    counts = [0, 19, 3, *range(10, 60)]
    candidates = [view(FRAME, unmoved(count)) for count in counts]
    found = Verifier(build_estimator("magsac")).verify(view(FRAME), candidates)
    assert [result.inliers for result in found] == [count if count > 3 else 0 for count in counts]
    assert [len(result.query_points) for result in found] == [result.inliers for result in found]


def test_nothing_to_verify():
    assert Verifier(Fixed([IDENTITY], [True])).verify(view(FRAME), []) == []


@pytest.mark.parametrize(
    ("name", "size"),
    [("magsac", SHORTLIST_SIZE), ("accurate", SHORTLIST_SIZE), ("poselib", SHORTLIST_SIZE), ("kornia-ransac", None)],
)
def test_estimators_say_whether_a_coarse_pass_selects_what_they_verify(name, size):
    assert Verifier(build_estimator(name)).shortlist_size == size
    assert Verifier(build_estimator(name), shortlist_size=7).shortlist_size == 7
    assert Verifier(build_estimator(name), shortlist_size=None).shortlist_size is None


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


def test_few_matches_of_cells_or_a_matcher_are_no_alignment():
    points = np.zeros((30, 2))
    for count, mirrored, expected in ((24, False, None), (25, False, 25), (30, True, None)):
        found = Verification(
            np.diag([-1.0 if mirrored else 1.0, 1.0, 1.0]), float(count), points[:count], points[:count]
        )
        kept = _unless_by_chance(found, 25, Size(64, 48))
        assert (kept.inliers if kept.homography is not None else None) == expected
    assert _unless_by_chance(found, 0, Size(64, 48)) is found


def test_a_network_for_none_of_the_methods_is_refused(tmp_path):
    path = tmp_path / "network.safetensors"
    settings = RegistrationSettings(side_px=32, width=8, iterations=2)
    network_file("iterative", settings, build_registration(settings), training_data="nothing").save(path)
    resources = load_resources(weights=[path])
    with pytest.raises(VerifierError, match="--weights gives a network for 'iterative', and the method is magsac"):
        build_aligner("magsac", resources)
    for names in (["magsac", "iterative"], ["magsac", "auto"]):
        assert list(build_aligners(names, resources)) == names
