"""The loss of maps whose cells match, and of maps whose cells do not."""

import pytest
import torch

from vpr_dhe.records import Size
from vpr_dhe.training.registration.map_matching import map_matching_loss

SIDE, CELLS = 64, 8
SIZE = Size(SIDE, SIDE)
CELL_PX = SIDE // CELLS


def distinct_maps():
    """A map in which each cell is unlike all others."""
    return torch.eye(CELLS * CELLS).view(1, CELLS * CELLS, CELLS, CELLS)


def displaced(x_px, y_px):
    return torch.tensor([x_px, y_px], dtype=torch.float32).expand(1, 4, 2)


@pytest.mark.parametrize(("columns", "rows"), [(0, 0), (2, 0), (-1, 3)])
def test_cells_that_match_where_the_displacement_says_cost_nothing(columns, rows):
    a = distinct_maps()
    b = a.roll((rows, columns), dims=(2, 3))
    maps = torch.cat([a, b])
    right = map_matching_loss(maps, displaced(columns * CELL_PX, rows * CELL_PX), SIZE)
    wrong = map_matching_loss(maps, displaced((columns + 1) * CELL_PX, rows * CELL_PX), SIZE)
    assert float(right) < 1e-3
    assert float(wrong) > 5


def test_training_brings_matching_cells_together():
    torch.manual_seed(0)
    maps = torch.randn(2, 16, CELLS, CELLS, requires_grad=True)
    optimizer = torch.optim.Adam([maps], lr=0.1)
    losses = []
    for _ in range(60):
        optimizer.zero_grad()
        loss = map_matching_loss(maps, displaced(4.0, -6.0), SIZE)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    # Half a cell aside, a cell has four counterparts that share the probability.
    assert losses[-1] < 0.4 * losses[0]
