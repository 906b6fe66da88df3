"""What teaches a network on matches: which of them are right, and where the homography fitted to them goes astray.

Points and homographies are in `UNIT` frames. Pixels are those of an input of 384 x 384, whatever the real one is, so
that limits mean the same for every model; what belongs to matches is in multiples of their tolerance.

Source: Yi et al., "Learning to find good correspondences", CVPR 2018, section 3.3 (balanced cross-entropy and a loss of
the fitted model). The saturation and the band without opinion are ours.
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
"""The input whose pixels errors are stated in."""
# Matches lie at the centres of cells, so close to the tolerance it is chance on which side of it one is.
_SURELY_RIGHT, _SURELY_WRONG = 20 / 24, 32 / 24
_LIMIT_PX = 100.0
# Corners lie outside of what most matches show, and are harder to get right than what lies between them.
_CORNER_WEIGHT = 0.3


def tolerances_off(homographies: Float64[Tensor, "pairs 3 3"], batch: MatchBatch) -> Float64[Tensor, "pairs matches"]:
    """How far each match is off a homography, in multiples of its tolerance."""
    apart = (project(homographies, batch.query) - batch.candidate) / batch.tolerance.unsqueeze(1)
    return torch.linalg.vector_norm(apart, dim=-1)


def opinions(off: Float64[Tensor, "pairs matches"], present: Bool[Tensor, "pairs matches"]) -> Bool[Tensor, "..."]:
    """Which matches are surely right or surely wrong."""
    return present & ((off < _SURELY_RIGHT) | (off > _SURELY_WRONG))


def balanced_cross_entropy(
    logits: Float[Tensor, "pairs matches"],
    right: Bool[Tensor, "pairs matches"],
    counted: Bool[Tensor, "pairs matches"],
) -> Float[Tensor, " pairs"]:
    """The mean cross-entropy of the right matches of each pair plus that of the wrong; a side without any is 0."""
    entropy = binary_cross_entropy_with_logits(logits, right.to(logits), reduction="none")
    return mean_where(entropy, counted & right) + mean_where(entropy, counted & ~right)


def saturating_fit_error(
    fits: Sequence[Float64[Tensor, "pairs 3 3"]],
    truths: Float64[Tensor, "pairs 3 3"],
    query: Float64[Tensor, "pairs matches 2"],
    right: Bool[Tensor, "pairs matches"],
) -> Float64[Tensor, " pairs"]:
    """How far fits put the right matches and the corners of the query from where they belong, in pixels.

    The mean over all fits, the later of which repair what the earlier ones miss. A distance d counts as L d / (L + d)
    with L = 100 px: a hopeless pair does not outweigh the others, and its gradient never vanishes.
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
    """REI of all fits in pixels, saturating as above, where `right` are the matches that MAGSAC keeps."""
    matches = inliers_in_reference(batch, right)
    errors_px = [reprojection_errors_of_inliers(in_reference(fit), matches, _LIMIT_PX) for fit in fits]
    return torch.stack(errors_px).mean(dim=0)


def inliers_in_reference(batch: MatchBatch, kept: Bool[Tensor, "pairs matches"]) -> InlierMatches:
    """Matches in pixels, with K of each pair; what is not present must come last."""
    to_reference = resizing(UNIT, REFERENCE).to(batch.query.device)
    return InlierMatches(
        project(to_reference, batch.query),
        project(to_reference, batch.candidate),
        batch.present.sum(dim=1),
        (kept & batch.present).sum(dim=1),
    )


def in_reference(between_units: Float64[Tensor, "pairs 3 3"]) -> Float64[Tensor, "pairs 3 3"]:
    """Carry homographies over from `UNIT` frames to `REFERENCE`, up to scale."""
    after, before = (resizing(*sizes).to(between_units.device) for sizes in ((UNIT, REFERENCE), (REFERENCE, UNIT)))
    return after @ between_units @ before


def mean_where(values: Float[Tensor, "*batch last"], chosen: Bool[Tensor, "*batch last"]) -> Float[Tensor, "*batch"]:
    """The mean along the last dimension of what is chosen; 0, still with a graph, where nothing is."""
    return values.masked_fill(~chosen, 0).sum(dim=-1) / chosen.sum(dim=-1).clamp(min=1)


def _saturating_px(apart: Float64[Tensor, "pairs points 2"]) -> Float64[Tensor, "pairs points"]:
    scale = torch.tensor([REFERENCE.width / UNIT.width, REFERENCE.height / UNIT.height]).to(apart)
    distances_px = torch.linalg.vector_norm(apart * scale, dim=-1)
    return _LIMIT_PX * distances_px / (_LIMIT_PX + distances_px)
