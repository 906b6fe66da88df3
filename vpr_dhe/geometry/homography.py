"""Homographies as batched, differentiable tensor operations. Convention: target = H * source, H[2, 2] = 1."""

# torch.linalg is not typed; the signatures here state the types.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false

import torch
from jaxtyping import Bool, Float, Float64
from torch import Tensor

# Smaller projective scales and determinants count as zero.
EPSILON = 1e-12


def normalise(homography: Float[Tensor, "*batch 3 3"]) -> Float[Tensor, "*batch 3 3"]:
    """Scale homographies to H[2, 2] = 1; those with H[2, 2] = 0 become infinite and fail `is_usable`."""
    return homography / homography[..., 2:, 2:]


def is_usable(homography: Float[Tensor, "*batch 3 3"]) -> Bool[Tensor, "*batch"]:
    """Mask of homographies that are finite and invertible."""
    finite = torch.isfinite(homography).all(dim=-1).all(dim=-1)
    determinant = torch.linalg.det(torch.nan_to_num(homography, nan=0.0, posinf=0.0, neginf=0.0))
    return finite & (determinant.abs() > EPSILON)


def project(
    homography: Float[Tensor, "*#batch 3 3"], points: Float[Tensor, "*#batch points 2"]
) -> Float[Tensor, "*batch points 2"]:
    """Map points (x, y) by homographies; points on the horizon map to very large values, never to NaN."""
    mapped = points @ homography[..., :, :2].mT + homography[..., :, 2].unsqueeze(-2)
    scale = mapped[..., 2:]
    away_from_zero = torch.where(scale >= 0, scale.clamp(min=EPSILON), scale.clamp(max=-EPSILON))
    return mapped[..., :2] / away_from_zero


def area_ratio(homography: Float[Tensor, "3 3"], place: Float[Tensor, "2"]) -> Float[Tensor, ""]:
    """Ratio of areas around a place, the determinant of the Jacobian there; negative if the image is mirrored.

    It does not depend on the sign of H, which is that of the pixel (0, 0) and says nothing of other places.
    """
    return torch.linalg.det(homography) / (homography[2, :2] @ place + homography[2, 2]) ** 3


def same_side_of_horizon(
    homography: Float[Tensor, "*#batch 3 3"],
    points: Float[Tensor, "*#batch points 2"],
    place: Float[Tensor, "*#batch 2"],
) -> Bool[Tensor, "*batch points"]:
    """Mask of points on the same side of the horizon (the line mapped to infinity) as `place`."""
    row = homography[..., 2, :, None]
    depth, depth_of_place = (at @ row[..., :2, :] + row[..., 2:, :] for at in (points, place.unsqueeze(-2)))
    return (depth * depth_of_place > 0).squeeze(-1)


def reprojection_errors(
    homography: Float[Tensor, "*#batch 3 3"],
    source: Float[Tensor, "*#batch points 2"],
    target: Float[Tensor, "*#batch points 2"],
) -> Float[Tensor, "*batch points"]:
    """Compute distances |H * source - target| in pixels of the target."""
    return torch.linalg.vector_norm(project(homography, source) - target, dim=-1)


def four_point_homography(
    source: Float[Tensor, "*batch 4 2"], target: Float[Tensor, "*batch 4 2"]
) -> Float64[Tensor, "*batch 3 3"]:
    """Compute the homography through four correspondences.

    With H[2, 2] = 1 in a frame centred on the points, each correspondence gives two rows of an 8 x 8 system, which is
    solved in float64. Unlike the null vector of a rank-deficient 9 x 9 system, its solution has a gradient wherever the
    points determine it. Degenerate points (three on a line) give values that fail `is_usable`.

    Source: Hartley and Zisserman, Multiple View Geometry, 2nd ed., section 4.1 (4.4.4 for the centring).
    """
    source_frame, target_frame = _unit_frame(source.double()), _unit_frame(target.double())
    x, y = project(source_frame, source.double()).unbind(-1)
    u, v = project(target_frame, target.double()).unbind(-1)
    zero, one = torch.zeros_like(x), torch.ones_like(x)
    rows_u = torch.stack([x, y, one, zero, zero, zero, -u * x, -u * y], dim=-1)
    rows_v = torch.stack([zero, zero, zero, x, y, one, -v * x, -v * y], dim=-1)
    # solve_ex neither raises for a singular batch member nor synchronises with the device.
    solution = torch.linalg.solve_ex(torch.cat([rows_u, rows_v], dim=-2), torch.cat([u, v], dim=-1)).result
    centred = torch.cat([solution, one[..., :1]], dim=-1).unflatten(-1, (3, 3))
    return normalise(torch.linalg.inv_ex(target_frame).inverse @ centred @ source_frame)


def _unit_frame(points: Float64[Tensor, "*batch 4 2"]) -> Float64[Tensor, "*batch 3 3"]:
    """Similarity that moves points to mean 0 and mean absolute coordinate 1, for a well-conditioned system."""
    centre = points.mean(dim=-2)
    scale = (points - centre.unsqueeze(-2)).abs().mean(dim=(-2, -1)).clamp(min=EPSILON).reciprocal()
    zero, one = torch.zeros_like(scale), torch.ones_like(scale)
    entries = [scale, zero, -scale * centre[..., 0], zero, scale, -scale * centre[..., 1], zero, zero, one]
    return torch.stack(entries, dim=-1).unflatten(-1, (3, 3))


def mean_corner_error(
    estimate: Float[Tensor, "*#batch 3 3"],
    truth: Float[Tensor, "*#batch 3 3"],
    corners: Float[Tensor, "*#batch 4 2"],
) -> Float[Tensor, "*batch"]:
    """Mean distance in pixels between the corners of the source image under two homographies (MACE of one pair)."""
    return torch.linalg.vector_norm(project(estimate, corners) - project(truth, corners), dim=-1).mean(dim=-1)
