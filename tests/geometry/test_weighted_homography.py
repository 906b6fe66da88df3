"""The weighted fit against known homographies, and its gradient against finite differences."""

import pytest
import torch

from vpr_dhe.geometry.homography import four_point_homography, mean_corner_error, normalise, project
from vpr_dhe.geometry.weighted_homography import weighted_homography

SQUARE = torch.tensor([[-1.0, -1.0], [1.0, -1.0], [1.0, 1.0], [-1.0, 1.0]], dtype=torch.float64)


def random(*shape: int, seed: int) -> torch.Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def truths(count: int) -> torch.Tensor:
    """Homographies that move each corner of a square of side 2 by up to a quarter of it."""
    return four_point_homography(SQUARE.expand(count, 4, 2), SQUARE + random(count, 4, 2, seed=0) - 0.5)


def test_ideal_weights_recover_the_homography_among_outliers():
    truth = truths(20)
    source = random(20, 60, 2, seed=1) * 2 - 1
    target = project(truth, source)
    target[:, 30:] = random(20, 30, 2, seed=2) * 2 - 1
    weights = (torch.arange(60) < 30).expand(20, 60).double()
    found = weighted_homography(weights, source, target)
    assert mean_corner_error(found, truth, SQUARE).max() < 5e-3  # of 2; the ridge's
    assert mean_corner_error(weighted_homography(torch.ones(20, 60), source, target), truth, SQUARE).min() > 0.05


def test_only_ratios_of_weights_matter_and_padding_does_not():
    source, target, weights = random(3, 20, 2, seed=1), random(3, 20, 2, seed=2), random(3, 20, seed=3) + 0.1
    expected = normalise(weighted_homography(weights, source, target))
    padding = torch.full((3, 5, 2), 7.0, dtype=torch.float64)
    padded = weighted_homography(
        torch.cat([100 * weights, torch.zeros(3, 5)], dim=1),
        torch.cat([source, padding], dim=1),
        torch.cat([target, padding], dim=1),
    )
    torch.testing.assert_close(normalise(padded), expected, rtol=1e-8, atol=1e-8)


def test_gradient_agrees_with_finite_differences():
    weights, source, target = random(2, 7, seed=4) + 0.1, random(2, 7, 2, seed=5), random(2, 7, 2, seed=6)
    inputs = tuple(value.requires_grad_() for value in (weights, source, target))
    assert torch.autograd.gradcheck(weighted_homography, inputs)


@pytest.mark.parametrize("weights", [torch.tensor([[1.0, 1.0, 0.0, 0.0, 0.0]]), torch.ones(1, 5)])
def test_points_that_determine_nothing_give_finite_values_and_gradients(weights):
    line = torch.arange(5.0).expand(2, 5).T[None].double()
    weights = weights.clone().requires_grad_()
    found = weighted_homography(weights, line, line.clone())
    found.sum().backward()
    assert torch.isfinite(found).all()
    assert weights.grad is not None
    assert torch.isfinite(weights.grad).all()


def test_no_weight_at_all_gives_finite_values():
    assert torch.isfinite(
        weighted_homography(torch.zeros(2, 5), random(2, 5, 2, seed=1), random(2, 5, 2, seed=2))
    ).all()
