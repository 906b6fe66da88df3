"""Contrasts: what they are at their extremes, and which cells correspond under known homographies."""

from math import log

import pytest
import torch
from torch.nn.functional import normalize, one_hot

from vpr_dhe.records import Grid, Size
from vpr_dhe.training.pretrain.contrastive import contrastive_loss, correspondence_loss, corresponding_cells

GRID, INPUT = Grid(3, 4), Size(64, 48)
IDENTITY = torch.eye(3, dtype=torch.float64)[None]


def shift(x_px, y_px):
    return torch.tensor([[[1.0, 0, x_px], [0, 1.0, y_px], [0, 0, 1.0]]], dtype=torch.float64)


def test_partners_that_are_unlike_all_others_cost_nothing():
    vectors = torch.eye(5)
    assert contrastive_loss(vectors, vectors, torch.eye(5, dtype=torch.bool), 0.01) < 1e-6


def test_vectors_that_say_nothing_cost_the_logarithm_of_their_number():
    vectors = normalize(torch.ones(6, 4), dim=1)
    assert contrastive_loss(vectors, vectors, torch.eye(6, dtype=torch.bool), 0.1) == pytest.approx(log(6), abs=1e-5)


def test_other_pairs_of_the_same_place_are_no_negatives():
    vectors = normalize(torch.ones(6, 4), dim=1)
    same_place = torch.eye(6, dtype=torch.bool)
    same_place[:2, :2] = True  # the first two have four rivals left, of five
    expected = (2 * log(5) + 4 * log(6)) / 6
    assert contrastive_loss(vectors, vectors, same_place, 0.1) == pytest.approx(expected, abs=1e-5)


def test_the_wrong_partner_costs_the_difference_over_the_temperature():
    vectors = torch.eye(2)
    assert contrastive_loss(vectors, vectors.flip(0), torch.eye(2, dtype=torch.bool), 0.1) == pytest.approx(
        10.0, abs=1e-3
    )


def test_under_the_identity_every_cell_corresponds_to_itself():
    assert torch.allclose(corresponding_cells(IDENTITY, GRID, INPUT), torch.eye(12)[None])


def test_a_shift_by_a_cell_moves_each_cell_and_loses_the_last():
    weights = corresponding_cells(shift(16.0, 0.0), GRID, INPUT)[0].view(3, 4, 3, 4)
    assert torch.allclose(weights[1, 0], one_hot(torch.tensor(5), 12).float().view(3, 4))
    assert not weights[:, 3].any()


def test_a_point_between_cells_is_shared_by_how_near_it_is():
    weights = corresponding_cells(shift(4.0, 8.0), GRID, INPUT)[0, 0].view(3, 4)
    assert torch.allclose(weights[:2, :2], torch.tensor([[0.375, 0.125], [0.375, 0.125]]))
    assert weights.sum() == pytest.approx(1.0)


def test_corresponding_cells_follow_any_grid_and_aspect():
    weights = corresponding_cells(shift(10.0, 5.0), Grid(4, 2), Size(20, 20))[0].view(4, 2, 4, 2)
    assert weights[0, 0, 1, 1] == pytest.approx(1.0)


def test_maps_that_agree_where_they_should_cost_nothing_and_others_do():
    maps = torch.eye(12)[None]
    corresponding = corresponding_cells(IDENTITY, GRID, INPUT)
    assert correspondence_loss(maps, maps, corresponding, 0.01) < 1e-6
    assert correspondence_loss(maps, maps.flip(1), corresponding, 0.1) > 5


def test_cells_without_a_partner_are_left_out():
    corresponding = corresponding_cells(shift(16.0, 0.0), GRID, INPUT)
    query = torch.eye(12)[None]
    candidate = query.clone().view(1, 3, 4, 12).roll(1, dims=2).flatten(1, 2)
    assert correspondence_loss(query, candidate, corresponding, 0.01) < 1e-6


def test_without_any_pair_the_loss_is_nothing_and_has_a_gradient():
    maps = torch.zeros(0, 12, 8, requires_grad=True)
    none = torch.zeros(0, 12, 12)
    loss = correspondence_loss(maps, maps, none, 0.1)
    loss.backward()
    assert loss == 0


def test_gradients_are_those_of_finite_differences():
    generator = torch.Generator().manual_seed(1)
    maps = torch.randn(2, 2, 12, 5, dtype=torch.float64, generator=generator).requires_grad_()
    corresponding = corresponding_cells(shift(5.0, -3.0), GRID, INPUT).double().expand(2, -1, -1)
    assert torch.autograd.gradcheck(lambda both: correspondence_loss(both[0], both[1], corresponding, 0.5), maps)
    vectors = torch.randn(2, 4, 3, dtype=torch.float64, generator=generator).requires_grad_()
    same_place = torch.eye(4, dtype=torch.bool)
    same_place[1, 3] = same_place[3, 1] = True
    assert torch.autograd.gradcheck(lambda both: contrastive_loss(both[0], both[1], same_place, 0.5), vectors)
