"""Correspondence of the cells of two images by a homography, and the loss of descriptors that should follow it."""

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Float64, Int64
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits

from vpr_dhe.geometry.coordinates import cell_centres, resizing
from vpr_dhe.geometry.homography import project
from vpr_dhe.records import Grid, Size

TEMPERATURE = 0.07
"""Divides cosines before the softmax."""


class Correspondence(NamedTuple):
    """Positions of the cells of one image in another: shares of each cell among all cells there, and whether inside."""

    shares: Float[Tensor, "pairs cells cells"]
    inside: Bool[Tensor, "pairs cells"]

    def to(self, device: torch.device) -> "Correspondence":
        """Copy on a device."""
        return Correspondence(self.shares.to(device), self.inside.to(device))


def corresponding_cells(homographies: Float64[Tensor, "pairs 3 3"], grid: Grid, input_size: Size) -> Correspondence:
    """Cells that homographies between inputs lead to, by bilinear interpolation between the centres of cells."""
    size = Size(grid.columns, grid.rows)
    there = project(resizing(input_size, size) @ homographies, cell_centres(grid, input_size))
    last = torch.tensor(size, dtype=torch.float64) - 1
    inside = ((there > -0.5) & (there < last + 0.5)).all(dim=-1)
    there = there.clamp(min=torch.zeros_like(last), max=last)
    first = torch.minimum(there.floor(), last - 1)
    shares = torch.zeros(*inside.shape, inside.shape[1])
    for right in (0, 1):
        for below in (0, 1):
            step = torch.tensor([right, below])
            share = (1 - (there - first - step).abs()).prod(dim=-1)
            shares.scatter_add_(2, _index(first + step, grid)[..., None], share.float()[..., None])
    return Correspondence(shares, inside)


def _index(cells: Float64[Tensor, "pairs cells 2"], grid: Grid) -> Int64[Tensor, "pairs cells"]:
    """Row-major index of cells (x, y)."""
    return (cells[..., 1] * grid.columns + cells[..., 0]).long()


class HeadLoss(NamedTuple):
    """Losses of a batch, and the share of cells inside both images that find their counterpart."""

    matching: Float[Tensor, ""]
    reliability: Float[Tensor, ""]
    found: Float[Tensor, ""]


def head_loss(
    similarity: Float[Tensor, "pairs cells cells"],
    logits: Float[Tensor, "pairs cells"],
    truth: Correspondence,
    sky: Bool[Tensor, "pairs cells"],
) -> HeadLoss:
    """Cross-entropy of the counterpart of each cell, and that of whether it is found and belongs to the place.

    Args:
        similarity: cosines of the cells of one image with those of the other.
        logits: of the reliability of the cells of the first.
        truth: of the same cells.
        sky: mask of the same cells; sky belongs to no place.
    """
    nearest = similarity.detach().argmax(dim=2, keepdim=True)
    # Bilinear shares reach the four cells around the true position.
    found = truth.inside & (truth.shares.gather(2, nearest)[..., 0] > 0)
    return HeadLoss(
        matching_loss(similarity, truth),
        binary_cross_entropy_with_logits(logits, (found & ~sky).float()),
        (found & truth.inside).sum() / truth.inside.sum().clamp(min=1),
    )


def matching_loss(similarity: Float[Tensor, "pairs cells cells"], truth: Correspondence) -> Float[Tensor, ""]:
    """Cross-entropy of the counterparts of the cells inside, by the cosines of all cells of two images.

    Source: Sun et al., "LoFTR: Detector-free local feature matching with transformers", CVPR 2021, equation 5.
    """
    entropy = -(truth.shares * (similarity / TEMPERATURE).log_softmax(dim=2)).sum(dim=2)
    inside = truth.inside.float()
    return (entropy * inside).sum() / inside.sum().clamp(min=1)
