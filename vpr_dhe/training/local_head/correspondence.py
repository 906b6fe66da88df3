"""Correspondence of the cells of two images, and the loss of descriptors under it."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Float64, Int64
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits

from vpr_dhe.geometry.coordinates import cell_centres, resizing
from vpr_dhe.geometry.homography import project
from vpr_dhe.records import Grid, Size

TEMPERATURE = 0.07
"""Temperature of the softmax over cosines."""


class Correspondence(NamedTuple):
    """Positions of the cells of one image in another, as weights over all cells there.

    `inside` marks cells that are known to lie in the other image; it says nothing about cells that are not `known`.
    """

    shares: Float[Tensor, "pairs cells cells"]
    inside: Bool[Tensor, "pairs cells"]
    known: Bool[Tensor, "pairs cells"]

    def to(self, device: torch.device) -> "Correspondence":
        """Copy on a device."""
        return Correspondence(*(part.to(device) for part in self))

    @classmethod
    def joined(cls, parts: Sequence["Correspondence"]) -> "Correspondence":
        """Concatenate pairs."""
        return cls(*map(torch.cat, zip(*parts, strict=True)))


def corresponding_cells(homographies: Float64[Tensor, "pairs 3 3"], grid: Grid, input_size: Size) -> Correspondence:
    """Map cells by homographies between inputs, with bilinear weights between the centres of cells."""
    there = project(_to_cells(grid, input_size) @ homographies, cell_centres(grid, input_size))
    return _at(there, torch.ones(there.shape[:2], dtype=torch.bool), grid)


def matched_cells(
    here: Float64[Tensor, "matches 2"], there: Float64[Tensor, "matches 2"], grid: Grid, input_size: Size
) -> Correspondence:
    """Map cells of one pair by its matches between inputs: each moves by the mean displacement of the matches in it."""
    cells = grid.rows * grid.columns
    here, there = (project(_to_cells(grid, input_size), points) for points in (here, there))
    index = _index(here.round(), grid)
    count = torch.zeros(cells, dtype=torch.float64).index_add_(0, index, torch.ones(len(index), dtype=torch.float64))
    moves = torch.zeros(cells, 2, dtype=torch.float64).index_add_(0, index, there - here)
    own = cell_centres(grid, Size(grid.columns, grid.rows))
    return _at((own + moves / count.clamp(min=1)[:, None])[None], (count > 0)[None], grid)


def _to_cells(grid: Grid, input_size: Size) -> Float64[Tensor, "3 3"]:
    """Homography from pixels of the input to cells."""
    return resizing(input_size, Size(grid.columns, grid.rows))


def _at(there: Float64[Tensor, "pairs cells 2"], known: Bool[Tensor, "pairs cells"], grid: Grid) -> Correspondence:
    """Correspondence of cells with positions among the cells of another image."""
    last = torch.tensor([grid.columns, grid.rows], dtype=torch.float64) - 1
    inside = ((there > -0.5) & (there < last + 0.5)).all(dim=-1) & known
    there = there.clamp(min=torch.zeros_like(last), max=last)
    first = torch.minimum(there.floor(), last - 1)
    shares = torch.zeros(*inside.shape, inside.shape[1])
    for right in (0, 1):
        for below in (0, 1):
            step = torch.tensor([right, below])
            share = (1 - (there - first - step).abs()).prod(dim=-1)
            shares.scatter_add_(2, _index(first + step, grid)[..., None], share.float()[..., None])
    return Correspondence(shares, inside, known)


def _index(cells: Float64[Tensor, "*cells 2"], grid: Grid) -> Int64[Tensor, "*cells"]:
    """Row-major index of cells (x, y)."""
    return (cells[..., 1] * grid.columns + cells[..., 0]).long()


class HeadLoss(NamedTuple):
    """Losses of a batch, and the share of cells inside both images that are matched correctly."""

    matching: Float[Tensor, ""]
    reliability: Float[Tensor, ""]
    found: Float[Tensor, ""]


def head_loss(
    similarity: Float[Tensor, "pairs cells cells"],
    logits: Float[Tensor, "pairs cells"],
    truth: Correspondence,
    sky: Bool[Tensor, "pairs cells"],
) -> HeadLoss:
    """Cross-entropy of the corresponding cell, and cross-entropy of the reliability.

    A cell is reliable if it is matched correctly and is not sky. Cells with unknown correspondence are ignored unless
    they are sky.

    Args:
        similarity: cosines of the cells of one image with those of the other.
        logits: logits of the reliability of the cells of the first image.
        truth: true correspondence of the same cells.
        sky: mask of the same cells that show sky.
    """
    nearest = similarity.detach().argmax(dim=2, keepdim=True)
    # Bilinear weights are nonzero for the four cells around the true position.
    found = truth.inside & (truth.shares.gather(2, nearest)[..., 0] > 0)
    labelled = truth.known | sky
    return HeadLoss(
        matching_loss(similarity, truth),
        binary_cross_entropy_with_logits(logits[labelled], (found & ~sky)[labelled].float()),
        (found & truth.inside).sum() / truth.inside.sum().clamp(min=1),
    )


def matching_loss(similarity: Float[Tensor, "pairs cells cells"], truth: Correspondence) -> Float[Tensor, ""]:
    """Cross-entropy of the correspondence of the cells inside, by a softmax over the cosines of all cells.

    Source: Sun et al., "LoFTR: Detector-free local feature matching with transformers", CVPR 2021, equation 5.
    """
    entropy = -(truth.shares * (similarity / TEMPERATURE).log_softmax(dim=2)).sum(dim=2)
    inside = truth.inside.float()
    return (entropy * inside).sum() / inside.sum().clamp(min=1)
