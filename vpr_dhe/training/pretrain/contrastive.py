"""Contrastive losses over places and over points.

Source: van den Oord et al., "Representation Learning with Contrastive Predictive Coding", 2018 (arXiv:1807.03748),
equation 4.
"""

import torch
from jaxtyping import Bool, Float, Float64
from torch import Tensor
from torch.nn.functional import cross_entropy

from vpr_dhe.geometry.coordinates import cell_centres
from vpr_dhe.geometry.homography import project
from vpr_dhe.records import Grid, Size
from vpr_dhe.training.devices import in_single_precision
from vpr_dhe.training.sources.base import others_of_place


def contrastive_loss(
    queries: Float[Tensor, "pairs dimension"],
    candidates: Float[Tensor, "pairs dimension"],
    same_place: Bool[Tensor, "pairs pairs"],
    temperature: float,
) -> Float[Tensor, ""]:
    """Symmetric InfoNCE loss of pairs of unit vectors; other pairs of the same place are no negatives."""
    with in_single_precision():
        logits = queries @ candidates.mT / temperature
    logits = logits.masked_fill(others_of_place(same_place), -torch.inf)
    partner = torch.arange(len(logits), device=logits.device)
    return (cross_entropy(logits, partner) + cross_entropy(logits.mT, partner)) / 2


def correspondence_loss(
    query_maps: Float[Tensor, "pairs cells dimension"],
    candidate_maps: Float[Tensor, "pairs cells dimension"],
    corresponding: Float[Tensor, "pairs cells candidate_cells"],
    temperature: float,
) -> Float[Tensor, ""]:
    """Dense InfoNCE loss between query cells and their corresponding candidate cells.

    `corresponding` are the weights of `corresponding_cells`, the target distribution of a Kullback-Leibler divergence.
    Query cells without a target are ignored; without any target the loss is 0.
    """
    with in_single_precision():
        chosen = (query_maps @ candidate_maps.mT / temperature).log_softmax(dim=-1)
    divergence = torch.xlogy(corresponding, corresponding) - corresponding * chosen
    return divergence.sum() / corresponding.sum().clamp(min=1)


def corresponding_cells(
    homographies: Float64[Tensor, "pairs 3 3"], grid: Grid, input_size: Size
) -> Float[Tensor, "pairs cells cells"]:
    """Bilinear weights over the cells of B at the position of each cell of A; they sum to 1, or to 0 outside B.

    Args:
        homographies: from pixels of A's input to pixels of B's.
        grid: grid of the local maps of both.
        input_size: size of both inputs in pixels.
    """
    centres = cell_centres(grid, input_size).to(homographies.device)
    cell_px = torch.tensor([input_size.width / grid.columns, input_size.height / grid.rows]).to(centres)
    apart = (project(homographies, centres).unsqueeze(2) - centres) / cell_px
    weights = (1 - apart.abs()).clamp(min=0).prod(dim=-1)
    # Beyond the centres of the outermost cells the weights sum to less than 1; such points count as outside.
    return torch.where(weights.sum(dim=-1, keepdim=True) > 1 - 1e-6, weights, 0.0).float()
