"""Coarse pass: a quarter of the query's cells tells which of many candidates are worth a full verification.

Two images of one place share many matches that one shift of the grid explains, within a cell or so; chance gives few.
Counting them needs no samples and no estimate.

Source: after Jégou, Douze and Schmid, "Hamming embedding and weak geometric consistency for large scale image search",
ECCV 2008, who vote for scales and angles; docs/experiments/speed.md has what it keeps of recall, and what it spares.
"""

from collections.abc import Callable

import numpy as np
from jaxtyping import Float, Int64
from torch import Tensor

from vpr_dhe.geometry.matching import MutualNeighbours
from vpr_dhe.records import Grid

# Every second cell of every second row.
_CELL_STEP = 2
# Cells along the side of a grid whose shifts are counted one by one; those of finer grids are counted by so many bins.
_SIDE_BINS = 20


def coarse_votes(
    local_map: Float[Tensor, "cells dimension"],
    grid: Grid,
    match: Callable[[Float[Tensor, "quarter dimension"]], MutualNeighbours],
) -> Int64[np.ndarray, " candidates"]:
    """Coarse pass of a query's local map: `match` matches some of its cells with all candidates; see `shift_votes`."""
    cells = coarse_cells(grid)
    return shift_votes(match(local_map[cells]), cells, grid)


def coarse_cells(grid: Grid) -> Int64[np.ndarray, " quarter"]:
    """Numbers of the cells of a query that the coarse pass matches: a quarter of a grid, evenly spread."""
    numbers = np.arange(grid.rows * grid.columns).reshape(grid.rows, grid.columns)
    return numbers[::_CELL_STEP, ::_CELL_STEP].reshape(-1)


def shift_votes(
    found: MutualNeighbours, cells: Int64[np.ndarray, " quarter"], grid: Grid
) -> Int64[np.ndarray, " candidates"]:
    """Count the matches that agree with one shift of the grid, the one that most agree with, for each candidate.

    Args:
        found: nearest cells of each candidate to some cells of the query.
        cells: numbers of these in the grid.
        grid: of the query and of the candidates.
    """
    candidate, number = found.mutual.cpu().numpy().nonzero()
    own, theirs = cells[number], found.index.cpu().numpy()[candidate, number]
    bin_cells = max(1, round(max(grid.rows, grid.columns) / _SIDE_BINS))
    down = (theirs // grid.columns - own // grid.columns + grid.rows) // bin_cells
    right = (theirs % grid.columns - own % grid.columns + grid.columns) // bin_cells
    # Shifts are smaller than the grid, so that the outermost bins are empty, or spare ones beside the last.
    shape = len(found.mutual), 2 * grid.rows // bin_cells + 2, 2 * grid.columns // bin_cells + 2
    flat = (candidate * shape[1] + down) * shape[2] + right
    votes = np.bincount(flat, minlength=shape[0] * shape[1] * shape[2]).reshape(shape)
    votes = votes[:, :-2] + votes[:, 1:-1] + votes[:, 2:]
    votes = votes[:, :, :-2] + votes[:, :, 1:-1] + votes[:, :, 2:]
    return votes.max(axis=(1, 2))
