"""Heads of `dhe` of fewer cells: what they see, and that their error falls."""

import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from vpr_dhe.records import Grid

sys.path.append(str(Path(__file__).parents[2] / "benchmarks"))
import dhe_budget


def test_maps_are_averaged_to_unit_norm():
    maps = torch.nn.functional.normalize(torch.rand(2, 16, 5), dim=2)
    torch.testing.assert_close(dhe_budget.averaged(maps, Grid(4, 4), 4), maps)
    smaller = dhe_budget.averaged(maps, Grid(4, 4), 2)
    assert smaller.shape == (2, 4, 5)
    torch.testing.assert_close(smaller.norm(dim=2), torch.ones(2, 4))
    constant = maps[:, :1].expand(2, 16, 5)
    torch.testing.assert_close(dhe_budget.averaged(constant, Grid(4, 4), 2), constant[:, :4])


@pytest.mark.slow
def test_a_small_head_learns_shifts(monkeypatch):
    monkeypatch.setattr(dhe_budget, "ROUND", 32)
    random = np.random.default_rng(0)

    def shifted(count: int) -> dhe_budget.Pairs:
        """Random maps of 6 x 6 cells and themselves one cell, 64 px, to the right or to the left."""
        maps = torch.nn.functional.normalize(torch.from_numpy(random.normal(size=(count, 6, 6, 32))).float(), dim=3)
        steps = random.choice([-1, 1], count)
        moved = [one.roll(int(step), dims=1) for one, step in zip(maps, steps, strict=True)]
        homographies = torch.eye(3, dtype=torch.float64).repeat(count, 1, 1)
        homographies[:, 0, 2] = torch.from_numpy(64.0 * steps)
        return dhe_budget.Pairs(maps.flatten(1, 2), torch.stack(moved).flatten(1, 2), homographies)

    first, *_, last = dhe_budget.train(6, 0.25, shifted, shifted(32), seed=0)
    assert first.median_px == pytest.approx(64, abs=2)
    assert last.median_px < 32
