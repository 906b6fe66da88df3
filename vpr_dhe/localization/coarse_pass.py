"""Coarse pass: selection of the candidates that are verified, by a quarter of their cells.

Two images of one place share many matches that one shift of the grid explains, within a cell or so; chance gives few,
and less similar ones. Adding them up needs no samples and no estimate.

Source: after Jégou, Douze and Schmid, "Hamming embedding and weak geometric consistency for large scale image search",
ECCV 2008, who vote for scales and angles; docs/experiments/speed.md has what it keeps of recall, and what it spares.
"""

from collections.abc import Callable, Sequence

import numpy as np
from jaxtyping import Float, Float64, Int64
from torch import Tensor

from vpr_dhe.geometry.matching import MutualNeighbours
from vpr_dhe.localization.robust_scores import inlier_contrasts, similarity_contrasts
from vpr_dhe.records import Grid

# Every second cell of every second row, of the query and of the candidates.
_CELL_STEP = 2
# Cells along the side of a grid whose shifts are counted one by one; those of finer grids are counted by so many bins.
_SIDE_BINS = 10
_SIMILARITY_POWER = 4
# Matches that one shift explains by chance; docs/experiments/speed.md has what half and twice of it change.
_CHANCE_MATCHES = 8.0


def coarse_votes(
    local_map: Float[Tensor, "cells dimension"],
    grid: Grid,
    match: Callable[[Float[Tensor, "quarter dimension"], Int64[np.ndarray, " quarter"]], MutualNeighbours],
) -> Float64[np.ndarray, " candidates"]:
    """Coarse pass of a query's local map; see `shift_votes`.

    `match` takes cells of the query and the numbers of these cells, and matches them with the same cells of all
    candidates.
    """
    cells = coarse_cells(grid)
    return shift_votes(match(local_map[cells], cells), _coarse_grid(grid))


def coarse_cells(grid: Grid) -> Int64[np.ndarray, " quarter"]:
    """Numbers of the cells that the coarse pass matches: a quarter of a grid, evenly spread."""
    numbers = np.arange(grid.rows * grid.columns).reshape(grid.rows, grid.columns)
    return numbers[::_CELL_STEP, ::_CELL_STEP].reshape(-1)


def _coarse_grid(grid: Grid) -> Grid:
    """Grid of these cells."""
    return Grid(rows=-(-grid.rows // _CELL_STEP), columns=-(-grid.columns // _CELL_STEP))


def shift_votes(found: MutualNeighbours, grid: Grid) -> Float64[np.ndarray, " candidates"]:
    """Add up the matches that agree with one shift of the grid, the one with the most votes, for each candidate.

    A match counts by the fourth power of its similarity: those that chance makes are less similar.

    Args:
        found: nearest cells of each candidate to the cells of the query.
        grid: of the query and of the candidates.
    """
    candidate, own = found.mutual.cpu().numpy().nonzero()
    theirs = found.index.cpu().numpy()[candidate, own]
    weights = found.similarity.cpu().numpy()[candidate, own].astype(np.float64) ** _SIMILARITY_POWER
    bin_cells = max(1, round(max(grid.rows, grid.columns) / _SIDE_BINS))
    down = (theirs // grid.columns - own // grid.columns + grid.rows) // bin_cells
    right = (theirs % grid.columns - own % grid.columns + grid.columns) // bin_cells
    # At least three bins along each side, of which the last two are spare.
    shape = len(found.mutual), 2 * grid.rows // bin_cells + 3, 2 * grid.columns // bin_cells + 3
    flat = (candidate * shape[1] + down) * shape[2] + right
    counted = np.bincount(flat, weights, minlength=shape[0] * shape[1] * shape[2])
    # Without any match, NumPy returns integers.
    votes = counted.astype(np.float64, copy=False).reshape(shape)
    votes = votes[:, :-2] + votes[:, 1:-1] + votes[:, 2:]
    votes = votes[:, :, :-2] + votes[:, :, 1:-1] + votes[:, :, 2:]
    return votes.max(axis=(1, 2))


def most_likely(
    votes: Sequence[float], similarities: Sequence[float], size: int, similarity_weight: float
) -> tuple[list[int], list[int]]:
    """Split candidates by evidence, of votes and of similarity, into the best `size` and the others.

    Args:
        votes: of each candidate of one query, from `shift_votes`.
        similarities: of their global descriptors to that of the query.
        size: number of candidates to verify.
        similarity_weight: weight of the contrast of similarity beside that of votes.

    Returns:
        Rows of the candidates to verify, ascending, and those of the others, most likely first.
    """
    evidence = inlier_contrasts(_as_counts(votes)) + similarity_weight * similarity_contrasts(similarities)
    best_first = np.argsort(-evidence, kind="stable").tolist()
    return sorted(best_first[:size]), best_first[size:]


def _as_counts(votes: Sequence[float]) -> Float64[np.ndarray, " candidates"]:
    """Votes in a unit by which their mean, which is mostly chance, is as large as that of counts of matches."""
    found = np.array(votes, np.float64)
    return found * (_CHANCE_MATCHES / found.mean()) if found.any() else found
