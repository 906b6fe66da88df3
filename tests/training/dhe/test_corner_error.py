"""The corner error against a plain computation, and homographies of predicted points."""

import numpy as np
import pytest
import torch

from vpr_dhe.geometry.homography import four_point_homography
from vpr_dhe.records import Size
from vpr_dhe.training.dhe.corner_error import corner_error_loss
from vpr_dhe.training.dhe.predicted import predicted_homographies

SIZE = Size(200, 100)
CORNERS = np.array([[0.0, 0.0], [199.0, 0.0], [199.0, 99.0], [0.0, 99.0]])


def homographies(seed, count):
    rng = np.random.default_rng(seed)
    moved = CORNERS + rng.uniform(-20, 20, (count, 4, 2))
    return four_point_homography(
        torch.from_numpy(np.broadcast_to(CORNERS, moved.shape).copy()), torch.from_numpy(moved)
    ), moved


def test_it_is_the_mean_distance_of_the_corners():
    (predicted, moved), (truth, true) = homographies(0, 3), homographies(1, 3)
    distances = np.hypot(*(moved - true).reshape(-1, 2).T)
    assert corner_error_loss(predicted, truth, SIZE).item() == pytest.approx(distances.mean())
    limited = np.mean([30 * distance / (30 + distance) for distance in distances])
    assert corner_error_loss(predicted, truth, SIZE, limit_px=30.0).item() == pytest.approx(limited)
    assert corner_error_loss(truth, truth, SIZE, limit_px=30.0).item() == pytest.approx(0, abs=1e-9)
    assert corner_error_loss(predicted[:0], truth[:0], SIZE).item() == 0


@pytest.mark.parametrize("limit_px", [None, 30.0])
def test_its_gradient_is_that_of_finite_differences(limit_px):
    _, moved = homographies(2, 2)
    truth, _ = homographies(3, 2)
    source = torch.from_numpy(np.broadcast_to(CORNERS, moved.shape).copy())

    def loss(target):
        return corner_error_loss(four_point_homography(source, target), truth, SIZE, limit_px)

    assert torch.autograd.gradcheck(loss, (torch.from_numpy(moved).requires_grad_(),), eps=1e-5, atol=1e-6)


def test_degenerate_predictions_are_left_out_and_leave_gradients_finite():
    _, moved = homographies(4, 3)
    source = torch.from_numpy(np.broadcast_to(CORNERS, moved.shape).copy())
    source[1] = source[1, :1]
    source.requires_grad_()
    found = predicted_homographies(source, torch.from_numpy(moved))
    assert found.usable.tolist() == [True, False, True]
    corner_error_loss(found.homographies, torch.eye(3).double().expand(2, 3, 3), SIZE).backward()
    assert torch.isfinite(source.grad).all()
    assert source.grad[1].abs().max() == 0
