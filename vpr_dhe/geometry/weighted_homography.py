"""Homography of weighted correspondences, as a differentiable function of weights and points."""

# torch.linalg is not typed; the signatures here state its types.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false

import torch
from jaxtyping import Float, Float64
from torch import Tensor

from vpr_dhe.geometry.homography import EPSILON

# Regularisation towards an affine map, in normalised coordinates, because a few inaccurate matches hardly constrain the
# perspective part.
_PERSPECTIVE_RIDGE = 1e-4
_AFFINE_RIDGE = 1e-6


def weighted_homography(
    weights: Float[Tensor, "batch points"],
    source: Float[Tensor, "batch points 2"],
    target: Float[Tensor, "batch points 2"],
) -> Float64[Tensor, "batch 3 3"]:
    """Minimise the weighted algebraic error of target = H * source, in float64; H is defined up to scale.

    Points are normalised to weighted mean 0 and weighted mean square 1, where H[2, 2] = 1, so the normal equations are
    8 x 8 and differentiable wherever the points determine the solution; a small ridge keeps it finite elsewhere.
    Weights are non-negative; only their ratios matter, and points of weight 0 (padding) have no effect.

    Source: Hartley and Zisserman, Multiple View Geometry, 2nd ed., section 4.1 (4.4.4 for the normalisation); Yi et
    al., "Learning to find good correspondences", CVPR 2018, section 3.2, for the weights.
    """
    weights = weights.double()
    weights = weights / weights.sum(dim=1, keepdim=True).clamp(min=EPSILON)
    source_frame, target_frame = _weighted_frame(weights, source.double()), _weighted_frame(weights, target.double())
    x, y = _moved(source_frame, source.double()).unbind(-1)
    u, v = _moved(target_frame, target.double()).unbind(-1)
    zero, one = torch.zeros_like(x), torch.ones_like(x)
    rows_u = torch.stack([x, y, one, zero, zero, zero, -u * x, -u * y], dim=-1)
    rows_v = torch.stack([zero, zero, zero, x, y, one, -v * x, -v * y], dim=-1)
    rows, values = torch.cat([rows_u, rows_v], dim=1), torch.cat([u, v], dim=1)
    weighted_rows = rows * torch.cat([weights, weights], dim=1).unsqueeze(-1)
    ridge = torch.tensor([_AFFINE_RIDGE] * 6 + [_PERSPECTIVE_RIDGE] * 2, dtype=torch.float64, device=x.device)
    normal_matrix = rows.mT @ weighted_rows + torch.diag(ridge)
    # solve_ex neither raises for a singular batch member nor synchronises with the device.
    solution = torch.linalg.solve_ex(normal_matrix, (weighted_rows * values.unsqueeze(-1)).sum(dim=1)).result
    centred = torch.cat([solution, torch.ones_like(solution[:, :1])], dim=1).unflatten(1, (3, 3))
    return torch.linalg.inv_ex(target_frame).inverse @ centred @ source_frame


def _weighted_frame(
    weights: Float64[Tensor, "batch points"], points: Float64[Tensor, "batch points 2"]
) -> Float64[Tensor, "batch 3 3"]:
    """Similarity that moves points to weighted mean 0 and weighted mean square 1."""
    centre = (weights.unsqueeze(-1) * points).sum(dim=1)
    spread = (weights * (points - centre.unsqueeze(1)).square().sum(dim=-1)).sum(dim=1)
    scale = spread.clamp(min=EPSILON).rsqrt()
    zero, one = torch.zeros_like(scale), torch.ones_like(scale)
    entries = [scale, zero, -scale * centre[:, 0], zero, scale, -scale * centre[:, 1], zero, zero, one]
    return torch.stack(entries, dim=-1).unflatten(-1, (3, 3))


def _moved(
    frame: Float64[Tensor, "batch 3 3"], points: Float64[Tensor, "batch points 2"]
) -> Float64[Tensor, "batch points 2"]:
    return points * frame[:, 0, 0, None, None] + frame[:, None, :2, 2]
