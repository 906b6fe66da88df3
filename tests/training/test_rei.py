"""REI against a computation in plain loops, and what must not change it."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from vpr_dhe.geometry.homography import four_point_homography
from vpr_dhe.records import Matches, Size
from vpr_dhe.training.rei import (
    InlierMatches,
    has_agreement,
    inlier_matches,
    rei_loss,
    reprojection_errors_of_inliers,
)

INPUT = Size(384, 384)
SQUARE = torch.tensor([[0.0, 0.0], [383.0, 0.0], [383.0, 383.0], [0.0, 383.0]], dtype=torch.float64)


def random_homography(rng, reach_px=60):
    return four_point_homography(SQUARE, SQUARE + torch.from_numpy(rng.uniform(-reach_px, reach_px, (4, 2))))


def plain_project(homography, x, y):
    a = [[float(value) for value in row] for row in homography]
    scale = a[2][0] * x + a[2][1] * y + a[2][2]
    return (a[0][0] * x + a[0][1] * y + a[0][2]) / scale, (a[1][0] * x + a[1][1] * y + a[1][2]) / scale


def plain_rei(homography, source, target, inliers):
    errors = []
    for (x, y), (u, v) in zip(source, target, strict=True):
        found_u, found_v = plain_project(homography, x, y)
        errors.append(math.hypot(found_u - u, found_v - v))
    smallest = sorted(errors)[:inliers]
    return sum(smallest) / len(smallest)


def found(homography, rng, inliers, outliers):
    """Matches of which some agree with a homography; the others are somewhere."""
    source = rng.uniform(20, 363, (inliers + outliers, 2))
    target = np.array([plain_project(homography, *point) for point in source]).reshape(-1, 2)
    target[inliers:] = rng.uniform(0, 383, (outliers, 2))
    order = rng.permutation(inliers + outliers)
    points = torch.from_numpy(source[order]), torch.from_numpy(target[order])
    return Matches(*points, torch.ones(inliers + outliers), tolerance_px=48.0)


def padded(source, target, inliers):
    return InlierMatches(source[None], target[None], torch.tensor([len(source)]), torch.tensor([inliers]))


def test_a_batch_agrees_with_plain_loops():
    rng = np.random.default_rng(0)
    truths = [random_homography(rng) for _ in range(5)]
    matches = [found(truth, rng, 30 + 10 * row, 40) for row, truth in enumerate(truths)]
    batch = inlier_matches(matches, INPUT)
    predictions = torch.stack([random_homography(rng) for _ in truths])
    expected = [
        plain_rei(prediction, match.query_points.tolist(), match.candidate_points.tolist(), int(inliers))
        for prediction, match, inliers in zip(predictions, matches, batch.inliers, strict=True)
    ]
    np.testing.assert_allclose(reprojection_errors_of_inliers(predictions, batch), expected, rtol=1e-9)
    assert rei_loss(predictions, batch).item() == pytest.approx(sum(expected) / 5)


def test_inliers_are_counted_by_magsac_and_the_true_homography_has_no_error():
    rng = np.random.default_rng(1)
    truths = [random_homography(rng) for _ in range(4)]
    matches = [found(truth, rng, 60, 40) for truth in truths]
    batch = inlier_matches(matches, INPUT)
    # A few of the random matches agree by chance.
    assert ((batch.inliers >= 60) & (batch.inliers <= 66)).all()
    exact = batch._replace(inliers=torch.full((4,), 60))
    assert reprojection_errors_of_inliers(torch.stack(truths), exact).max() < 1e-9
    assert (reprojection_errors_of_inliers(torch.eye(3).expand(4, 3, 3), exact) > 1).all()


def test_pairs_without_agreement_are_left_out_and_not_counted_as_right():
    rng = np.random.default_rng(2)
    truth, prediction = random_homography(rng), random_homography(rng)
    good, few, none = found(truth, rng, 50, 0), found(truth, rng, 3, 0), found(truth, rng, 0, 0)
    batch = inlier_matches([few, good, none], INPUT)
    assert has_agreement(batch).tolist() == [False, True, False]
    assert batch.inliers[[0, 2]].tolist() == [0, 0]
    alone = rei_loss(prediction[None], inlier_matches([good], INPUT))
    assert rei_loss(prediction.expand(3, 3, 3), batch).item() == pytest.approx(alone.item())
    assert has_agreement(batch, min_inliers=51).sum() == 0


@pytest.mark.parametrize("counts", [[3, 0], [0, 0]])
def test_a_batch_without_agreement_is_zero_with_a_gradient_of_zero(counts):
    rng = np.random.default_rng(3)
    homographies = torch.stack([random_homography(rng) for _ in counts]).requires_grad_()
    batch = inlier_matches([found(homographies[0].detach(), rng, count, 0) for count in counts], INPUT)
    loss = rei_loss(homographies, batch)
    loss.backward()
    assert loss.item() == 0
    assert homographies.grad is not None
    assert homographies.grad.abs().max() == 0


def test_the_gradient_is_that_of_finite_differences():
    rng = np.random.default_rng(4)
    targets = SQUARE + torch.from_numpy(rng.uniform(-50, 50, (3, 4, 2)))
    batch = inlier_matches([found(random_homography(rng), rng, 20 + row, 15) for row in range(3)], INPUT)
    sources = SQUARE.expand(3, 4, 2).clone().requires_grad_()

    def loss(source, target):
        return rei_loss(four_point_homography(source, target), batch)

    assert torch.autograd.gradcheck(loss, (sources, targets.requires_grad_()), eps=1e-5, atol=1e-6, rtol=1e-4)


def test_an_error_of_exactly_zero_has_a_finite_gradient():
    homography = torch.eye(3, dtype=torch.float64)[None].requires_grad_()
    points = torch.rand(10, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    rei_loss(homography, padded(points, points, 10)).backward()
    assert torch.isfinite(homography.grad).all()


pairs = st.integers(0, 2**32 - 1)


@given(seed=pairs, extra=st.integers(1, 30))
def test_neither_order_nor_padding_of_matches_matters(seed, extra):
    rng = np.random.default_rng(seed)
    prediction, truth = random_homography(rng), random_homography(rng)
    match = found(truth, rng, 12, 9)
    batch = padded(match.query_points, match.candidate_points, 12)
    order = torch.from_numpy(rng.permutation(21))
    shuffled = padded(match.query_points[order], match.candidate_points[order], 12)
    noise = torch.from_numpy(rng.uniform(-1e3, 1e3, (1, extra, 2)))
    longer = batch._replace(
        query_points=torch.cat([batch.query_points, noise], dim=1),
        candidate_points=torch.cat([batch.candidate_points, noise], dim=1),
    )
    expected = rei_loss(prediction[None], batch).item()
    assert rei_loss(prediction[None], shuffled).item() == pytest.approx(expected, rel=1e-12)
    assert rei_loss(prediction[None], longer).item() == pytest.approx(expected, rel=1e-12)


@given(seed=pairs)
def test_more_inliers_never_lower_it_and_a_shift_away_from_all_raises_it(seed):
    rng = np.random.default_rng(seed)
    prediction = random_homography(rng)
    match = found(random_homography(rng), rng, 12, 9)
    errors = [
        rei_loss(prediction[None], padded(match.query_points, match.candidate_points, inliers)).item()
        for inliers in range(4, 22)
    ]
    assert errors == sorted(errors)
    # Twice the distance of every target from where it is predicted is twice the loss.
    predicted = torch.tensor([plain_project(prediction, *point) for point in match.query_points.tolist()])
    further = predicted + 2 * (match.candidate_points - predicted)
    assert rei_loss(prediction[None], padded(match.query_points, further, 21)).item() == pytest.approx(2 * errors[-1])
