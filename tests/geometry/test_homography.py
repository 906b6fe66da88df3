"""Homographies against known ones, and as a differentiable function of their points."""

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from vpr_dhe.geometry.homography import (
    area_ratio,
    four_point_homography,
    is_usable,
    mean_corner_error,
    normalise,
    project,
    reprojection_errors,
    same_side_of_horizon,
)

SQUARE = torch.tensor([[0.0, 0.0], [383.0, 0.0], [383.0, 383.0], [0.0, 383.0]], dtype=torch.float64)
displacement = st.lists(st.floats(-90, 90), min_size=8, max_size=8)


@given(displacement)
@settings(max_examples=60)
def test_passes_through_its_points_and_agrees_with_opencv(moves):
    target = SQUARE + torch.tensor(moves, dtype=torch.float64).view(4, 2)
    found = four_point_homography(SQUARE, target)
    assert found[2, 2] == 1
    torch.testing.assert_close(project(found, SQUARE), target, rtol=0, atol=1e-8)
    oracle = cv2.getPerspectiveTransform(SQUARE.float().numpy(), target.float().numpy())
    np.testing.assert_allclose(found.numpy(), oracle, rtol=1e-3, atol=1e-3)


@given(displacement, displacement)
@settings(max_examples=30)
def test_composes_and_inverts(first_moves, second_moves):
    first = SQUARE + torch.tensor(first_moves, dtype=torch.float64).view(4, 2)
    second = SQUARE + torch.tensor(second_moves, dtype=torch.float64).view(4, 2)
    there, onward = four_point_homography(SQUARE, first), four_point_homography(first, second)
    direct = four_point_homography(SQUARE, second)
    torch.testing.assert_close(normalise(onward @ there), direct, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(
        normalise(torch.linalg.inv(there)), four_point_homography(first, SQUARE), rtol=1e-6, atol=1e-6
    )


def test_batch_equals_its_members_and_survives_a_degenerate_one():
    generator = torch.Generator().manual_seed(1)
    targets = SQUARE + 80 * torch.rand(5, 4, 2, generator=generator, dtype=torch.float64) - 40
    targets[2] = torch.tensor([[0.0, 0.0], [1.0, 1.0], [2.0, 2.0], [3.0, 3.0]])  # all on one line
    together = four_point_homography(SQUARE.expand(5, 4, 2), targets)
    usable = is_usable(together)
    assert usable.tolist() == [True, True, False, True, True]
    for index in (0, 1, 3, 4):
        torch.testing.assert_close(together[index], four_point_homography(SQUARE, targets[index]))


def test_coinciding_source_points_are_not_usable():
    source = SQUARE.clone()
    source[1] = source[0]
    assert not is_usable(four_point_homography(source, SQUARE))


def test_gradient_agrees_with_finite_differences():
    target = (SQUARE / 383 + 0.05 * torch.randn(4, 2, generator=torch.Generator().manual_seed(0))).requires_grad_()
    points = torch.rand(6, 2, generator=torch.Generator().manual_seed(2), dtype=torch.float64)

    def moved(corners: torch.Tensor) -> torch.Tensor:
        return project(four_point_homography(SQUARE / 383, corners), points)

    assert torch.autograd.gradcheck(moved, (target,), eps=1e-6, atol=1e-5)


def test_single_precision_points_are_solved_in_double():
    target = (SQUARE + torch.tensor([[3.0, -7.0]], dtype=torch.float64)).float()
    found = four_point_homography(SQUARE.float(), target)
    assert found.dtype == torch.float64
    torch.testing.assert_close(project(found, SQUARE), target.double(), rtol=0, atol=1e-9)


def test_horizon_points_are_far_away_and_never_nan():
    tilted = torch.tensor([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [-0.01, 0.0, 1.0]], dtype=torch.float64)
    landed = project(tilted, torch.tensor([[100.0, 5.0], [0.0, 0.0]], dtype=torch.float64))
    assert not torch.isnan(landed).any()
    assert landed[0].abs().max() > 1e9


def test_errors_are_distances_in_the_target():
    shift = torch.eye(3, dtype=torch.float64)
    shift[0, 2], shift[1, 2] = 3.0, 4.0
    assert reprojection_errors(shift, SQUARE, SQUARE).tolist() == [5.0] * 4
    assert float(mean_corner_error(shift, torch.eye(3, dtype=torch.float64), SQUARE)) == 5.0


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 0.0])
def test_broken_matrices_are_not_usable(value):
    matrix = torch.eye(3, dtype=torch.float64)
    matrix[1, 1] = value
    assert not is_usable(matrix)


def test_the_horizon_has_two_sides():
    to_infinity_at_10 = torch.eye(3, dtype=torch.float64)
    to_infinity_at_10[2, 0] = -0.1
    points = torch.tensor([[0.0, 0.0], [9.0, 50.0], [11.0, 0.0], [30.0, -4.0]], dtype=torch.float64)
    places = torch.tensor([[1.0, 1.0], [20.0, 0.0]], dtype=torch.float64)
    found = same_side_of_horizon(torch.stack([to_infinity_at_10, -to_infinity_at_10]), points, places)
    assert found.tolist() == [[True, True, False, False], [False, False, True, True]]


@pytest.mark.parametrize("wall", [-1, 1], ids=["left", "right"])
def test_the_area_ratio_tells_mirror_images_wherever_the_horizon_is(wall):
    """A camera that moves 6 m forward, beside a wall 5 m away: the horizon of the left one lies beyond pixel (0, 0)."""
    camera = torch.tensor([[320.0, 0, 319.5], [0, 320.0, 239.5], [0, 0, 1]], dtype=torch.float64)
    motion = torch.tensor([[5.0, 0, 0], [0, 5.0, 0], [-6.0 * wall, 0, 5.0]], dtype=torch.float64)
    found = normalise(camera @ motion @ torch.linalg.inv(camera))
    centre = torch.tensor([319.5, 239.5], dtype=torch.float64)
    assert area_ratio(found, centre).item() == pytest.approx(1)
    mirrored = normalise(found @ torch.tensor([[-1.0, 0, 639], [0, 1, 0], [0, 0, 1]], dtype=torch.float64))
    assert area_ratio(mirrored, centre).item() == pytest.approx(-1)
