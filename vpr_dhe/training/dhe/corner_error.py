"""Corner error loss between predicted and known homographies."""

import torch
from jaxtyping import Float, Float64
from torch import Tensor

from vpr_dhe.geometry.coordinates import corners
from vpr_dhe.geometry.homography import project
from vpr_dhe.records import Size


def corner_error_loss(
    predicted: Float[Tensor, "pairs 3 3"],
    truth: Float64[Tensor, "pairs 3 3"],
    size: Size,
    limit_px: float | None = None,
) -> Float64[Tensor, ""]:
    """Mean distance, in pixels, between the query's corners under two homographies; 0 for an empty batch.

    With a limit L, a distance d counts as L d / (L + d): nearly d if small, at most L, and with a nonzero gradient
    everywhere, so that outliers neither dominate nor are ignored.

    Source: DeTone et al., "Deep Image Homography Estimation", 2016 (arXiv:1606.03798), section 5 (without the limit).
    """
    square = corners(size).to(truth.device)
    distances_px = torch.linalg.vector_norm(project(predicted.double(), square) - project(truth, square), dim=-1)
    if limit_px is not None:
        distances_px = limit_px * distances_px / (limit_px + distances_px)
    return distances_px.sum() / max(distances_px.numel(), 1)
