"""Differentiable homographies from predicted points."""

from typing import NamedTuple

from jaxtyping import Bool, Float, Float64
from torch import Tensor

from vpr_dhe.geometry.homography import four_point_homography, is_usable


class PredictedHomographies(NamedTuple):
    """Homographies of the pairs that `usable` marks, in order."""

    homographies: Float64[Tensor, "usable 3 3"]
    usable: Bool[Tensor, " pairs"]


def predicted_homographies(
    query_points: Float[Tensor, "pairs 4 2"], candidate_points: Float[Tensor, "pairs 4 2"]
) -> PredictedHomographies:
    """Homographies through four predicted point pairs each; degenerate predictions are left out.

    They are removed before the differentiable solve: if they were masked afterwards, their infinities would turn the
    gradients of all pairs into NaN.
    """
    usable = is_usable(four_point_homography(query_points.detach(), candidate_points.detach()))
    return PredictedHomographies(four_point_homography(query_points[usable], candidate_points[usable]), usable)
