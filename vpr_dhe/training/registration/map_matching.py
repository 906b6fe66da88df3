"""Loss for matching the feature maps of two images cell by cell."""

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import normalize

from vpr_dhe.records import Grid, Size
from vpr_dhe.training.devices import in_single_precision
from vpr_dhe.training.local_head.correspondence import corresponding_cells, matching_loss
from vpr_dhe.verification.estimators.cross_modal.registration.base import homographies_of


def map_matching_loss(
    maps: Float[Tensor, "images channels rows columns"], displacements: Float[Tensor, "pairs 4 2"], size: Size
) -> Float[Tensor, ""]:
    """Cross-entropy of the corresponding cell in the other image, in both directions; see `matching_loss`.

    Args:
        maps: maps of all A, then of all B.
        displacements: displacements of the corners of A, in pixels of the images.
        size: size of the images.
    """
    grid = Grid(*maps.shape[-2:])
    a, b = normalize(maps, dim=1).flatten(2).chunk(2)
    with in_single_precision():
        similarity = a.mT @ b
    homographies = homographies_of(displacements.detach().cpu().double(), size)
    there, back = (
        corresponding_cells(matrices, grid, size).to(maps.device)
        for matrices in (homographies, torch.linalg.inv(homographies))
    )
    return (matching_loss(similarity, there) + matching_loss(similarity.mT, back)) / 2
