"""Errors of estimated alignments: of corners, with the area under their curve, and of dense flows."""

import math
from collections.abc import Sequence
from typing import NamedTuple, TypeAlias

import numpy as np
import torch
from jaxtyping import Bool, Float64
from torch import Tensor
from torch.nn import functional

from vpr_dhe.errors import BadInputError
from vpr_dhe.geometry.coordinates import corners, resizing
from vpr_dhe.geometry.homography import mean_corner_error, project
from vpr_dhe.geometry.warping import lands_inside, pixel_centres
from vpr_dhe.images.decoding import bounded_size
from vpr_dhe.records import DenseAlignment, Size

Pixels: TypeAlias = int | float
"""Threshold in pixels; an int stays an int, so that a table shows 3 and not 3.0."""

AUC_THRESHOLDS_PX = (1, 3, 5, 10)
"""Usual limits of the AUC of corner errors (LightGlue, ICCV 2023: 1 and 5; LoFTR, CVPR 2021: 3, 5 and 10)."""

PCK_THRESHOLDS_PX = (1, 3, 5)
"""Maximum errors of a correct pixel (RANSAC-Flow, ECCV 2020)."""


_MAX_FLOW_PIXELS = 4_000_000


class HomographyFlow(NamedTuple):
    """Displacement (x, y) in pixels of each pixel of A, and whether it lands inside B.

    Images of more than four million pixels are sampled at the centres of that many cells at most.
    """

    displacement_px: Float64[Tensor, "height width 2"]
    inside: Bool[Tensor, "height width"]


def corner_error_px(
    estimate: Float64[np.ndarray, "3 3"] | None, truth: Float64[np.ndarray, "3 3"], size: Size
) -> float:
    """Mean distance, in pixels of B, of the four corners of A under two homographies; infinite without an estimate.

    Args:
        estimate: from A to B; None where the method failed.
        truth: from A to B.
        size: width and height of A.
    """
    if estimate is None:
        return math.inf
    return float(mean_corner_error(torch.from_numpy(estimate), torch.from_numpy(truth), corners(size)))


def mean_corner_error_of_succeeded_px(errors_px: Sequence[float]) -> float | None:
    """Mean over the pairs whose estimate did not fail (MACE); None where all failed.

    A method that fails on hard pairs gets a better MACE; report it together with the number of failures.
    """
    succeeded = [error for error in errors_px if math.isfinite(error)]
    return math.fsum(succeeded) / len(succeeded) if succeeded else None


def corner_error_auc(
    errors_px: Sequence[float], thresholds_px: Sequence[Pixels] = AUC_THRESHOLDS_PX
) -> dict[Pixels, float]:
    """Area under the cumulative curve of errors up to each threshold, in percent of the area of a perfect method.

    The curve runs straight from (0, 0) through (i-th smallest error, i / number of pairs); after the last error below
    the threshold it is level. Failed pairs have infinite errors. This is the definition of the evaluators of
    SuperGlue (Sarlin et al., CVPR 2020) and glue-factory, without rounding.

    Raises:
        BadInputError: if there is no error, one is negative or not a number, or a threshold is not above 0.
    """
    errors = np.sort(np.array(errors_px, dtype=np.float64))
    if not errors.size or not (errors >= 0).all() or min(thresholds_px, default=1) <= 0:
        raise BadInputError("an AUC needs at least one error, errors from 0 px, and thresholds above 0 px")
    return {threshold_px: _area_below(errors, float(threshold_px)) for threshold_px in thresholds_px}


def _area_below(errors: Float64[np.ndarray, " pairs"], threshold_px: float) -> float:
    below = errors[errors < threshold_px]
    recalls = np.arange(len(below) + 1) / len(errors)
    curve_x = np.concatenate([[0.0], below, [threshold_px]])
    curve_y = np.concatenate([recalls, recalls[-1:]])
    return 100.0 * float(np.trapezoid(curve_y, curve_x)) / threshold_px


def flow_of_homography(homography: Float64[np.ndarray, "3 3"], size: Size, target_size: Size) -> HomographyFlow:
    """Compute the dense flow that a homography induces over all pixels of A.

    Pixels beyond the horizon, seen from the middle of A, always count as outside.

    Args:
        homography: from A to B.
        size: width and height of A.
        target_size: width and height of B.
    """
    sampled = bounded_size(size, _MAX_FLOW_PIXELS)
    to_image = resizing(sampled, size)
    matrix, points = torch.from_numpy(homography) @ to_image, pixel_centres(sampled)
    flow = (project(matrix, points) - project(to_image, points)).view(sampled.height, sampled.width, 2)
    return HomographyFlow(flow, lands_inside(matrix[None], sampled, target_size)[0])


def flow_of_alignment(alignment: DenseAlignment, size: Size) -> Float64[Tensor, "height width 2"]:
    """Interpolate the flow of a dense alignment bilinearly at every pixel of A, or of A resized to this size."""
    coarse = torch.from_numpy(alignment.flow_px).double().permute(2, 0, 1)[None]
    full = functional.interpolate(coarse, (size.height, size.width), mode="bilinear", align_corners=False)
    return full[0].permute(1, 2, 0)


def end_point_error(
    flow: Float64[Tensor, "height width 2"],
    truth: Float64[Tensor, "height width 2"],
    valid: Bool[Tensor, "height width"],
) -> float:
    """Mean length in pixels of the difference of two flows over the valid pixels (AEPE of one pair).

    Raises:
        BadInputError: if no pixel is valid.
    """
    return float(_errors_px(flow, truth, valid).mean())


def percentage_of_correct_keypoints(
    flow: Float64[Tensor, "height width 2"],
    truth: Float64[Tensor, "height width 2"],
    valid: Bool[Tensor, "height width"],
    thresholds_px: Sequence[Pixels] = PCK_THRESHOLDS_PX,
) -> dict[Pixels, float]:
    """Percentage of the valid pixels whose flow is off by at most each threshold (PCK of one pair).

    Source: Shen et al., "RANSAC-Flow: Generic Two-Stage Image Alignment", ECCV 2020, section 4.

    Raises:
        BadInputError: if no pixel is valid.
    """
    errors = _errors_px(flow, truth, valid)
    return {threshold_px: 100.0 * int((errors <= threshold_px).sum()) / len(errors) for threshold_px in thresholds_px}


def _errors_px(
    flow: Float64[Tensor, "height width 2"],
    truth: Float64[Tensor, "height width 2"],
    valid: Bool[Tensor, "height width"],
) -> Float64[Tensor, " valid"]:
    if not valid.any():
        raise BadInputError("the flow has no valid pixel; expected at least one, so leave this pair out")
    return torch.linalg.vector_norm(flow[valid] - truth[valid], dim=-1)
