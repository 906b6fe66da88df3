"""Contrast: what shows one place, or one point of it, is to be more alike than everything else in the batch.

Source: van den Oord et al., "Representation Learning with Contrastive Predictive Coding", 2018 (arXiv:1807.03748),
equation 4.
"""

import torch
from jaxtyping import Float, Float64
from torch import Tensor
from torch.nn.functional import cross_entropy

from vpr_dhe.geometry.coordinates import cell_centres
from vpr_dhe.geometry.homography import project
from vpr_dhe.records import Grid, Size


def contrastive_loss(
    queries: Float[Tensor, "pairs dimension"], candidates: Float[Tensor, "pairs dimension"], temperature: float
) -> Float[Tensor, ""]:
    """How far each unit vector is from choosing its partner among all, from both sides; 0 where all are sure."""
    logits = queries @ candidates.mT / temperature
    partner = torch.arange(len(logits), device=logits.device)
    return (cross_entropy(logits, partner) + cross_entropy(logits.mT, partner)) / 2


def correspondence_loss(
    query_maps: Float[Tensor, "pairs cells dimension"],
    candidate_maps: Float[Tensor, "pairs cells dimension"],
    corresponding: Float[Tensor, "pairs cells candidate_cells"],
    temperature: float,
) -> Float[Tensor, ""]:
    """How far each cell of the query is from choosing the cells of the candidate that show what it shows.

    `corresponding` are the weights of `corresponding_cells`, from which the choice differs by its Kullback-Leibler
    divergence; query cells without any are left out, and with none at all the loss is 0.
    """
    chosen = (query_maps @ candidate_maps.mT / temperature).log_softmax(dim=-1)
    divergence = torch.xlogy(corresponding, corresponding) - corresponding * chosen
    return divergence.sum() / corresponding.sum().clamp(min=1)


def corresponding_cells(
    homographies: Float64[Tensor, "pairs 3 3"], grid: Grid, input_size: Size
) -> Float[Tensor, "pairs cells cells"]:
    """By which weights the centre of each cell of A falls on the cells of B, bilinearly: 1 in all, or 0 if outside.

    Args:
        homographies: from pixels of A's input to pixels of B's.
        grid: of the local maps of both.
        input_size: of both, in pixels.
    """
    centres = cell_centres(grid, input_size).to(homographies.device)
    cell_px = torch.tensor([input_size.width / grid.columns, input_size.height / grid.rows]).to(centres)
    apart = (project(homographies, centres).unsqueeze(2) - centres) / cell_px
    weights = (1 - apart.abs()).clamp(min=0).prod(dim=-1)
    # Beyond the centres of the outermost cells only a part of the weight is left; such points are as good as outside.
    return torch.where(weights.sum(dim=-1, keepdim=True) > 1 - 1e-6, weights, 0.0).float()
