"""REI, the re-projection error of inliers: error of a homography on the inliers of a robust estimator.

Source: Lu et al., "Deep Homography Estimation for Visual Place Recognition", AAAI 2024, section "Re-projection error of
inliers loss". In the published code a pair without enough matches has error 0, which rewards the backbone for
producing no matches; here, such pairs are excluded from the mean.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Float64, Int64
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from vpr_dhe.geometry.homography import reprojection_errors
from vpr_dhe.records import Frame, Matches, Size
from vpr_dhe.verification.estimators.base import MIN_MATCHES, View
from vpr_dhe.verification.estimators.opencv import OpenCvEstimator
from vpr_dhe.verification.names import MAGSAC
from vpr_dhe.verification.verifier import Verifier

INLIER_THRESHOLD_PX = 24.0
"""Inlier threshold of K in pixels of a 384 px input (1.5 cells of 16 px)."""


class InlierMatches(NamedTuple):
    """Matches of a batch of pairs, in pixels of the network's input; rows from `counts` on are padding.

    `inliers` is K of each pair: its number of inliers under a robust estimator.
    """

    query_points: Float64[Tensor, "pairs matches 2"]
    candidate_points: Float64[Tensor, "pairs matches 2"]
    counts: Int64[Tensor, " pairs"]
    inliers: Int64[Tensor, " pairs"]


def inlier_matches(
    matches: Sequence[Matches], input_size: Size, threshold_px: float = INLIER_THRESHOLD_PX
) -> InlierMatches:
    """Pad the matches of one or more pairs to a batch, and count their inliers under MAGSAC.

    Args:
        matches: matches of each pair, between inputs of `input_size`.
        input_size: width and height of the network's input.
        threshold_px: reprojection error below which a match is an inlier.
    """
    frame = Frame(input_size, input_size)
    candidates = [View.of_matches(frame, found) for found in matches]
    # No shortlist, because these are independent pairs, not candidates of one query.
    verifier = Verifier(OpenCvEstimator(MAGSAC, threshold_px), threshold_px, shortlist_size=None)
    found = verifier.verify(View(frame), candidates)
    return InlierMatches(
        pad_sequence([match.query_points.cpu() for match in matches], batch_first=True),
        pad_sequence([match.candidate_points.cpu() for match in matches], batch_first=True),
        torch.tensor([len(match.similarity) for match in matches]),
        torch.tensor([verification.inliers for verification in found]),
    )


def has_agreement(matches: InlierMatches, min_inliers: int = MIN_MATCHES) -> Bool[Tensor, " pairs"]:
    """Mask of the pairs with enough matches and inliers for training."""
    return (matches.counts >= MIN_MATCHES) & (matches.inliers >= max(min_inliers, 1))


def reprojection_errors_of_inliers(
    homographies: Float[Tensor, "pairs 3 3"], matches: InlierMatches, limit_px: float | None = None
) -> Float64[Tensor, " pairs"]:
    """Mean of the K smallest reprojection errors of each pair, in pixels; 0 for a pair without inliers.

    Differentiable wherever the homographies are finite. With a limit L, an error e counts as L e / (L + e), as in
    `corner_error_loss`.
    """
    errors_px = reprojection_errors(homographies.double(), matches.query_points, matches.candidate_points)
    if limit_px is not None:
        errors_px = limit_px * errors_px / (limit_px + errors_px)
    position = torch.arange(errors_px.shape[1], device=errors_px.device)
    padding = position >= matches.counts[:, None]
    ascending = errors_px.masked_fill(padding, torch.inf).sort(dim=1).values
    kept = torch.minimum(matches.inliers, matches.counts)
    smallest = ascending.masked_fill(position >= kept[:, None], 0.0)
    return smallest.sum(dim=1) / kept.clamp(min=1)


def rei_loss(
    homographies: Float[Tensor, "pairs 3 3"], matches: InlierMatches, min_inliers: int = MIN_MATCHES
) -> Float64[Tensor, ""]:
    """Mean REI in pixels over the pairs with agreement; a differentiable 0 if there are none.

    Args:
        homographies: from query to candidate pixels of the network's input, finite.
        matches: matches of the same pairs.
        min_inliers: minimum K for a pair to count.
    """
    counted = has_agreement(matches, min_inliers)
    errors_px = reprojection_errors_of_inliers(homographies, matches)
    return errors_px.masked_fill(~counted, 0.0).sum() / counted.sum().clamp(min=1)
