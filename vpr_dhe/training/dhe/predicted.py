"""Differentiable homographies from predicted points."""

from typing import NamedTuple

from jaxtyping import Bool, Float, Float64
from torch import Tensor

from vpr_dhe.geometry.homography import four_point_homography, is_usable


class PredictedHomographies(NamedTuple):
    """Homographies of the pairs marked in `usable`, in order."""

    homographies: Float64[Tensor, "usable 3 3"]
    usable: Bool[Tensor, " pairs"]


def predicted_homographies(
    query_points: Float[Tensor, "pairs 4 2"], candidate_points: Float[Tensor, "pairs 4 2"]
) -> PredictedHomographies:
    """Solve for homographies from four predicted point pairs each; degenerate predictions are dropped.

    They are dropped before the differentiable solve, because masking them afterwards would make the gradients of all
    pairs NaN.
    """
    usable = is_usable(four_point_homography(query_points.detach(), candidate_points.detach()))
    return PredictedHomographies(four_point_homography(query_points[usable], candidate_points[usable]), usable)
