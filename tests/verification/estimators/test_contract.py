"""What every registered estimator must do, whatever its method: new ones are tested by being registered."""

import pickle

import numpy as np
import pytest
import torch

from vpr_dhe.errors import VerifierError
from vpr_dhe.geometry.coordinates import corners, homographies_between_inputs
from vpr_dhe.geometry.homography import four_point_homography, mean_corner_error, project
from vpr_dhe.records import Features, Frame, Grid, Matches, Size
from vpr_dhe.verification.build import build_estimator
from vpr_dhe.verification.estimators.base import HomographyEstimator, View
from vpr_dhe.verification.estimators.registry import ESTIMATORS, Needs
from vpr_dhe.verification.verifier import Verifier

INPUT = Size(384, 384)
FRAMES = [Frame(Size(640, 480), INPUT), Frame(Size(300, 500), INPUT), Frame(INPUT, INPUT)]
FROM_MATCHES = [name for name, spec in ESTIMATORS.items() if spec.needs is Needs.matches]


@pytest.fixture(params=FROM_MATCHES)
def estimator(request) -> HomographyEstimator:
    return build_estimator(request.param)


def a_homography(seed: int) -> torch.Tensor:
    """A homography between input frames that moves each corner by up to 60 px."""
    moves = torch.rand(4, 2, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) * 120 - 60
    return four_point_homography(corners(INPUT), corners(INPUT) + moves)


def some_matches(truth: torch.Tensor, inliers: int, outliers: int, seed: int = 0, noise_px: float = 0.5) -> Matches:
    """Matches in input frames: true ones with noise, then false ones anywhere."""
    generator = torch.Generator().manual_seed(seed)
    source = torch.rand(inliers + outliers, 2, generator=generator, dtype=torch.float64) * 383
    target = project(truth, source) + noise_px * torch.randn(source.shape, generator=generator, dtype=torch.float64)
    target[inliers:] = torch.rand(outliers, 2, generator=generator, dtype=torch.float64) * 383
    return Matches(source, target, torch.ones(len(source)), tolerance_px=8.0)


def view(frame: Frame, matches: Matches | None = None) -> View:
    def no_image():
        raise AssertionError("an estimator from matches has no business with pixels")

    return View(frame, no_image, matches=None if matches is None else lambda: matches)


def nothing() -> Matches:
    empty = torch.empty(0, 2, dtype=torch.float64)
    return Matches(empty, empty, torch.empty(0), 8.0)


def test_it_travels_to_other_processes(estimator):
    """Shards are verified by actors."""
    query, candidates = view(FRAMES[0]), [view(FRAMES[1], some_matches(a_homography(0), 80, 40))]
    before = estimator.estimate(query, candidates)
    after = pickle.loads(pickle.dumps(estimator)).estimate(query, candidates)
    assert torch.equal(before.matrices, after.matrices)


def test_finds_known_homographies_among_outliers(estimator):
    truths = [a_homography(seed) for seed in range(3)]
    candidates = [
        view(frame, some_matches(truth, 80, 40, seed))
        for seed, (truth, frame) in enumerate(zip(truths, FRAMES, strict=True))
    ]
    found = estimator.estimate(view(FRAMES[0]), candidates)
    assert found.valid.all()
    in_inputs = homographies_between_inputs(found.matrices, FRAMES[0], FRAMES)
    errors = mean_corner_error(in_inputs, torch.stack(truths), corners(INPUT))
    assert errors.max() < 3.0, errors


def test_matrices_are_double_normalised_and_finite(estimator):
    candidates = [view(FRAMES[1], some_matches(a_homography(4), 30, 30)), view(FRAMES[2], nothing())]
    found = estimator.estimate(view(FRAMES[0]), candidates)
    assert found.matrices.dtype == torch.float64
    assert found.matrices.shape == (2, 3, 3)
    assert (found.matrices[:, 2, 2] == 1).all()
    assert torch.isfinite(found.matrices).all()


def test_no_candidates_are_no_homographies(estimator):
    found = estimator.estimate(view(FRAMES[0]), [])
    assert (tuple(found.matrices.shape), tuple(found.valid.shape)) == ((0, 3, 3), (0,))


@pytest.mark.parametrize("count", [0, 1, 3])
def test_too_few_matches_fail_without_an_exception(estimator, count):
    found = estimator.estimate(view(FRAMES[0]), [view(FRAMES[0], some_matches(a_homography(1), count, 0))])
    assert found.valid.tolist() == [False]
    assert torch.equal(found.matrices[0], torch.eye(3, dtype=torch.float64))


@pytest.mark.parametrize("degenerate", ["one point", "one line"])
def test_degenerate_matches_never_give_nan(estimator, degenerate):
    along = torch.linspace(10, 300, 20, dtype=torch.float64)
    points = (
        torch.stack([along, 2 * along + 1], dim=1) if degenerate == "one line" else torch.full((20, 2), 50.0).double()
    )
    matches = Matches(points, points.flip(0), torch.ones(20), 8.0)
    found = estimator.estimate(view(FRAMES[0]), [view(FRAMES[0], matches)])
    assert torch.isfinite(found.matrices).all()


def test_is_deterministic_and_independent_of_the_batch(estimator):
    candidates = [view(FRAMES[0], some_matches(a_homography(seed), 25, 40, seed, noise_px=4)) for seed in range(5)]
    together = estimator.estimate(view(FRAMES[1]), candidates)
    again = estimator.estimate(view(FRAMES[1]), candidates)
    assert torch.equal(together.matrices, again.matrices)
    for index, candidate in enumerate(candidates):
        alone = estimator.estimate(view(FRAMES[1]), [candidate])
        assert torch.equal(alone.matrices[0], together.matrices[index])


def test_leaves_the_random_state_of_the_caller_alone(estimator):
    torch.manual_seed(5)
    np.random.seed(5)
    expected = torch.rand(3), np.random.rand(3)
    torch.manual_seed(5)
    np.random.seed(5)
    estimator.estimate(view(FRAMES[0]), [view(FRAMES[0], some_matches(a_homography(1), 20, 20))])
    assert torch.equal(torch.rand(3), expected[0])
    assert (np.random.rand(3) == expected[1]).all()


def test_unknown_names_and_missing_heads_are_explained():
    with pytest.raises(VerifierError, match="available: magsac"):
        build_estimator("magic")
    with pytest.raises(VerifierError, match=r"needs a homography head.*magsac"):
        build_estimator("dhe")


@pytest.mark.parametrize("uses_images", [False, True])
def test_a_blank_image_is_verified_by_nothing(estimator, uses_images, monkeypatch):
    monkeypatch.setattr(type(estimator), "uses_images", uses_images)
    cells, matched = torch.zeros(16, 8), some_matches(a_homography(1), 40, 0)
    cells[:, 0] = 1

    def of(local_map: torch.Tensor) -> View:
        features = Features(torch.zeros(4), local_map, Grid(4, 4), FRAMES[2])
        matches = matched if local_map.any() else nothing()
        return View(FRAMES[2], lambda: np.zeros((16, 16, 3), np.uint8), lambda: features, lambda: matches)

    shown, blank = of(cells), of(torch.zeros(16, 8))
    verifier = Verifier(estimator)
    from_blank = verifier.verify(blank, [shown, blank])
    to_blank, seen = verifier.verify(shown, [blank, shown])
    assert [(found.homography, found.score, found.inliers) for found in (*from_blank, to_blank)] == [(None, 0.0, 0)] * 3
    assert seen.inliers > 30
