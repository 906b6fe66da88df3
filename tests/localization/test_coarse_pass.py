"""The coarse pass: shifts that a naive count finds, too."""

from itertools import product

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from vpr_dhe.geometry.matching import MutualNeighbours, mutual_nearest_neighbours
from vpr_dhe.localization.coarse_pass import coarse_cells, coarse_votes, shift_votes
from vpr_dhe.records import Grid


def test_a_quarter_of_the_cells_is_evenly_spread():
    assert coarse_cells(Grid(rows=4, columns=5)).tolist() == [0, 2, 4, 10, 12, 14]


def naive_votes(found: MutualNeighbours, grid: Grid) -> list[float]:
    """The best of all shifts, tried one by one."""
    votes = []
    for index, mutual, similarity in zip(
        found.index.tolist(), found.mutual.tolist(), found.similarity.tolist(), strict=True
    ):
        moved = [
            (their // grid.columns - own // grid.columns, their % grid.columns - own % grid.columns, similarity[own])
            for own, their in enumerate(index)
            if mutual[own]
        ]
        shifts = product(range(-grid.rows, grid.rows), range(-grid.columns, grid.columns))
        votes.append(max(sum(one**4 for a, b, one in moved if max(abs(a - c), abs(b - d)) <= 1) for c, d in shifts))
    return votes


@given(st.integers(1, 10), st.integers(1, 10), st.integers(1, 4), st.integers(0, 1000))
def test_votes_are_those_of_the_best_of_all_shifts(rows, columns, candidates, seed):
    random, grid = np.random.default_rng(seed), Grid(rows=rows, columns=columns)
    shape = candidates, rows * columns
    found = MutualNeighbours(
        torch.from_numpy(random.integers(0, rows * columns, shape)),
        torch.from_numpy(random.random(shape) < 0.7),
        torch.from_numpy(random.random(shape)),
    )
    np.testing.assert_allclose(shift_votes(found, grid), naive_votes(found, grid))


@pytest.mark.parametrize("side", [16, 24, 89])
def test_a_moved_view_of_the_same_cells_has_more_votes_than_another_scene(side):
    torch.manual_seed(side)
    grid = Grid(side, side)
    scene, other = (torch.nn.functional.normalize(torch.randn(side, side, 32), dim=-1) for _ in range(2))
    moved = scene.roll((4, -6), dims=(0, 1))
    maps = torch.stack([other.flatten(0, 1), moved.flatten(0, 1)])
    votes = coarse_votes(scene.flatten(0, 1), grid, lambda rows, cells: mutual_nearest_neighbours(rows, maps[:, cells]))
    # What a shift moves out of the image comes in on the other side, far from where it was.
    kept = len(range(0, side - 4, 2)) * len(range(6, side, 2))
    assert votes[1] == pytest.approx(kept, rel=1e-4)
    assert votes[0] < kept / 4


@pytest.mark.parametrize("grid", [Grid(1, 60), Grid(60, 1), Grid(1, 1), Grid(2, 200)])
def test_long_grids_have_votes(grid):
    torch.manual_seed(0)
    row = torch.nn.functional.normalize(torch.randn(1, grid.rows * grid.columns, 8), dim=-1)
    (votes,) = coarse_votes(row[0], grid, lambda rows, cells: mutual_nearest_neighbours(rows, row[:, cells]))
    assert votes == pytest.approx(len(coarse_cells(grid)), rel=1e-4)


def test_without_matches_there_are_no_votes():
    blank = torch.zeros(3, 16, 4)
    votes = coarse_votes(blank[0], Grid(4, 4), lambda rows, cells: mutual_nearest_neighbours(rows, blank[:, cells]))
    assert votes.tolist() == [0.0, 0.0, 0.0]
