"""Heads of `dhe` of fewer cells: what they see, and that their error falls."""

import sys
from itertools import count
from pathlib import Path

import numpy as np
import pytest
import torch

from vpr_dhe.records import Grid
from vpr_dhe.training.dhe.stage import new_head

sys.path.append(str(Path(__file__).parents[2] / "benchmarks"))
import dhe_budget


def test_maps_are_resampled_to_unit_norm():
    maps = torch.nn.functional.normalize(torch.rand(2, 16, 5), dim=2)
    torch.testing.assert_close(dhe_budget.resampled(maps, Grid(4, 4), 4), maps)
    smaller = dhe_budget.resampled(maps, Grid(4, 4), 2)
    assert smaller.shape == (2, 4, 5)
    torch.testing.assert_close(smaller.norm(dim=2), torch.ones(2, 4))
    constant = maps[:, :1].expand(2, 16, 5)
    torch.testing.assert_close(dhe_budget.resampled(constant, Grid(4, 4), 2), constant[:, :4])


@pytest.mark.slow
def test_a_small_head_learns_shifts(monkeypatch):
    monkeypatch.setattr(dhe_budget, "ROUND", 32)
    monkeypatch.setattr(dhe_budget.time, "process_time", count(step=0.1).__next__)  # 0.1 s a step
    random = np.random.default_rng(0)

    def shifted(pairs: int) -> dhe_budget.Pairs:
        """Random maps of 6 x 6 cells and themselves one cell, 64 px, to the right or to the left."""
        maps = torch.nn.functional.normalize(torch.from_numpy(random.normal(size=(pairs, 6, 6, 32))).float(), dim=3)
        steps = random.permutation(pairs) % 2 * 2 - 1
        moved = [one.roll(int(step), dims=1) for one, step in zip(maps, steps, strict=True)]
        homographies = torch.eye(3, dtype=torch.float64).repeat(pairs, 1, 1)
        homographies[:, 0, 2] = torch.from_numpy(64.0 * steps)
        return dhe_budget.Pairs(maps.flatten(1, 2), torch.stack(moved).flatten(1, 2), homographies)

    first, *_, last = dhe_budget.train(new_head(0, Grid(6, 6)), 0.2, shifted, shifted(64), seed=0)
    assert first.median_px == pytest.approx(64, abs=2)
    assert (last.step, last.median_px < 16) == (120, True)
