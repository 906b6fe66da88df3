"""Losses of a network that weights matches: classification of the matches, and error of the fitted homography.

Points and homographies are in `UNIT` frames. Pixels refer to an input of 384 x 384, so that limits do not depend on the
model; errors of matches are in multiples of their tolerance.

Source: Yi et al., "Learning to find good correspondences", CVPR 2018, section 3.3 (balanced cross-entropy and a loss of
the fitted model). The saturation, and ignoring matches close to the tolerance, are additions.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float, Float64
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits

from vpr_dhe.geometry.coordinates import UNIT, corners, resizing
from vpr_dhe.geometry.homography import project
from vpr_dhe.records import Size
from vpr_dhe.training.rei import InlierMatches, reprojection_errors_of_inliers
from vpr_dhe.verification.estimators.dhe_lite import MatchBatch

REFERENCE = Size(384, 384)
"""Input size that pixel errors refer to."""
# Matches lie at the centres of cells, so their labels are random close to the tolerance.
_SURELY_RIGHT, _SURELY_WRONG = 20 / 24, 32 / 24
_LIMIT_PX = 100.0
# Corners are extrapolated from the matches, which makes their errors larger.
_CORNER_WEIGHT = 0.3


def tolerances_off(homographies: Float64[Tensor, "pairs 3 3"], batch: MatchBatch) -> Float64[Tensor, "pairs matches"]:
    """Error of each match under a homography, in multiples of its tolerance."""
    apart = (project(homographies, batch.query) - batch.candidate) / batch.tolerance.unsqueeze(1)
    return torch.linalg.vector_norm(apart, dim=-1)


def clearly_labelled(
    off: Float64[Tensor, "pairs matches"], present: Bool[Tensor, "pairs matches"]
) -> Bool[Tensor, "..."]:
    """Mask of the matches whose errors are clearly below or above the tolerance."""
    return present & ((off < _SURELY_RIGHT) | (off > _SURELY_WRONG))


def balanced_cross_entropy(
    logits: Float[Tensor, "pairs matches"],
    right: Bool[Tensor, "pairs matches"],
    counted: Bool[Tensor, "pairs matches"],
) -> Float[Tensor, " pairs"]:
    """Mean cross-entropy of the correct matches of each pair plus that of the wrong ones; 0 for an empty class."""
    entropy = binary_cross_entropy_with_logits(logits, right.to(logits), reduction="none")
    return mean_where(entropy, counted & right) + mean_where(entropy, counted & ~right)


def saturating_fit_error(
    fits: Sequence[Float64[Tensor, "pairs 3 3"]],
    truths: Float64[Tensor, "pairs 3 3"],
    query: Float64[Tensor, "pairs matches 2"],
    right: Bool[Tensor, "pairs matches"],
) -> Float64[Tensor, " pairs"]:
    """Error of fitted homographies on the correct matches and on the corners of the query, in pixels.

    The mean over all fits, from the first to the most refined. A distance d counts as L d / (L + d) with L = 100 px:
    outliers do not dominate, and the gradient never vanishes.
    """
    square = project(resizing(REFERENCE, UNIT), corners(REFERENCE)).to(query.device).expand(len(query), 4, 2)
    there, corners_there = project(truths, query), project(truths, square)
    errors_px = [
        mean_where(_saturating_px(project(fit, query) - there), right)
        + _CORNER_WEIGHT * _saturating_px(project(fit, square) - corners_there).mean(dim=1)
        for fit in fits
    ]
    return torch.stack(errors_px).mean(dim=0)


def saturating_rei(
    fits: Sequence[Float64[Tensor, "pairs 3 3"]], batch: MatchBatch, right: Bool[Tensor, "pairs matches"]
) -> Float64[Tensor, " pairs"]:
    """REI of all fits in pixels, saturating as in `saturating_fit_error`; `right` marks the inliers of MAGSAC."""
    matches = inliers_in_reference(batch, right)
    errors_px = [reprojection_errors_of_inliers(in_reference(fit), matches, _LIMIT_PX) for fit in fits]
    return torch.stack(errors_px).mean(dim=0)


def inliers_in_reference(batch: MatchBatch, kept: Bool[Tensor, "pairs matches"]) -> InlierMatches:
    """Matches in pixels, with K of each pair; absent matches must come last."""
    to_reference = resizing(UNIT, REFERENCE).to(batch.query.device)
    return InlierMatches(
        project(to_reference, batch.query),
        project(to_reference, batch.candidate),
        batch.present.sum(dim=1),
        (kept & batch.present).sum(dim=1),
    )


def in_reference(between_units: Float64[Tensor, "pairs 3 3"]) -> Float64[Tensor, "pairs 3 3"]:
    """Convert homographies from `UNIT` frames to `REFERENCE`, up to scale."""
    after, before = (resizing(*sizes).to(between_units.device) for sizes in ((UNIT, REFERENCE), (REFERENCE, UNIT)))
    return after @ between_units @ before


def mean_where(values: Float[Tensor, "*batch last"], chosen: Bool[Tensor, "*batch last"]) -> Float[Tensor, "*batch"]:
    """Mean of the chosen values along the last dimension; a differentiable 0 if none is chosen."""
    return values.masked_fill(~chosen, 0).sum(dim=-1) / chosen.sum(dim=-1).clamp(min=1)


def _saturating_px(apart: Float64[Tensor, "pairs points 2"]) -> Float64[Tensor, "pairs points"]:
    scale = torch.tensor([REFERENCE.width / UNIT.width, REFERENCE.height / UNIT.height]).to(apart)
    distances_px = torch.linalg.vector_norm(apart * scale, dim=-1)
    return _LIMIT_PX * distances_px / (_LIMIT_PX + distances_px)
