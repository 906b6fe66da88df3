"""Verify candidates by geometry: any estimator's homographies, one score for all."""

from collections.abc import Sequence
from typing import Literal, TypeAlias

import numpy as np
import torch
from jaxtyping import Float64

from vpr_dhe.geometry.coordinates import homographies_between_inputs, to_originals
from vpr_dhe.geometry.homography import reprojection_errors
from vpr_dhe.records import NOTHING_TO_MATCH, EstimatorDetails, Matches, Verification
from vpr_dhe.runtime.choices import AUTO
from vpr_dhe.runtime.threads import on_one_core
from vpr_dhe.verification.estimators.base import MIN_MATCHES, Homographies, HomographyEstimator, View

SHORTLIST_SIZE = 16
"""Candidates of a query that are verified after the coarse pass; docs/experiments/speed.md compares others."""

Points = Float64[np.ndarray, "matches 2"]
_Inliers: TypeAlias = tuple[Points, Points, float]


class Verifier:
    """Scores candidates by how many of their matches a homography explains: one score for all estimators.

    The matches are mutual nearest neighbours of local maps or keypoints, or those of the estimator's own matcher.

    Args:
        estimator: estimates the homographies.
        inlier_threshold_px: largest reprojection error of an inlier, in pixels of the candidate's input frame. None
            takes the tolerance of the matches, which the model file gives in cells of the local map
            (`tolerance_cells`).
        shortlist_size: number of candidates kept by the coarse pass of `localization`; None keeps all, as is the
            default for estimators without a coarse pass. `verify` itself verifies every candidate it is given.
    """

    def __init__(
        self,
        estimator: HomographyEstimator,
        inlier_threshold_px: float | None = None,
        *,
        shortlist_size: int | Literal["auto"] | None = AUTO,
    ) -> None:
        self.estimator, self.inlier_threshold_px = estimator, inlier_threshold_px
        by_default = SHORTLIST_SIZE if estimator.coarse_pass else None
        self.shortlist_size = by_default if shortlist_size == AUTO else shortlist_size

    def verify(self, query: View, candidates: Sequence[View]) -> list[Verification]:
        """Verify each candidate; a failed estimate, or one from fewer than four matches, scores 0, as do blank images.

        Source: Lu et al., "Deep Homography Estimation for Visual Place Recognition", AAAI 2024 (arXiv:2402.16086):
        re-ranking by the number of inliers.
        """
        if query.is_blank:
            return [NOTHING_TO_MATCH] * len(candidates)
        if not self.estimator.uses_images:  # no cell of a blank candidate has a match
            return self._scored(query, candidates)
        blank = [view.is_blank for view in candidates]
        verified = iter(self._scored(query, [view for view, empty in zip(candidates, blank, strict=True) if not empty]))
        return [NOTHING_TO_MATCH if empty else next(verified) for empty in blank]

    def _scored(self, query: View, candidates: Sequence[View]) -> list[Verification]:
        if not candidates:
            return []
        homographies = self.estimator.estimate(query, candidates)
        # A homography from pixels may be right where no match agrees with it.
        needs_inliers = not self.estimator.uses_images or homographies.matched is not None
        if homographies.matched is not None:
            query, candidates = homographies.matched.query, homographies.matched.candidates
        matches = [view.matches for view in candidates]  # computed here, on all cores, if not computed before
        inliers = on_one_core(lambda part: self._inliers(query, candidates, matches, part), homographies)
        matrices, valid = homographies.matrices.cpu().numpy(), homographies.valid.tolist()
        details = homographies.details or (None,) * len(candidates)
        return [
            _verification(
                matrices[number] if valid[number] else None,
                *inliers[number],
                details[number],
                needs_inliers=needs_inliers,
            )
            for number in range(len(candidates))
        ]

    def _threshold_px(self, matches: Matches) -> float:
        return matches.tolerance_px if self.inlier_threshold_px is None else self.inlier_threshold_px

    def _inliers(
        self, query: View, candidates: Sequence[View], matches: Sequence[Matches], homographies: Homographies
    ) -> list[_Inliers]:
        """Inliers of each candidate, in original pixels, and the mean squared similarity of each candidate's inliers.

        Inliers have a reprojection error below the threshold. The matches of all candidates are checked in one batch;
        `row` holds the candidate of each match.
        """
        frames = [view.frame for view in candidates]
        source = torch.cat([match.query_points.cpu() for match in matches])
        target = torch.cat([match.candidate_points.cpu() for match in matches])
        lengths = torch.tensor([len(match.similarity) for match in matches])
        row = torch.arange(len(matches)).repeat_interleave(lengths)
        in_inputs = homographies_between_inputs(homographies.matrices.cpu(), query.frame, frames)
        errors_px = reprojection_errors(in_inputs[row], source[:, None], target[:, None])[:, 0]
        threshold_px = torch.tensor([self._threshold_px(match) for match in matches], dtype=torch.float64)
        estimated = homographies.valid.cpu() & (lengths >= MIN_MATCHES)
        is_inlier = (errors_px < threshold_px[row]) & estimated[row]
        source, target, row = source[is_inlier], target[is_inlier], row[is_inlier]
        similarity = torch.cat([match.similarity.cpu() for match in matches])[is_inlier].double()
        inlier_counts = row.bincount(minlength=len(matches))
        weights = row.bincount(similarity.square(), minlength=len(matches)) / inlier_counts.clamp(min=1)
        counts = inlier_counts.tolist()
        query_points = to_originals(source, [query.frame] * len(frames), row).split(counts)
        candidate_points = to_originals(target, frames, row).split(counts)
        found = zip(query_points, candidate_points, weights.tolist(), strict=True)
        return [(a.numpy(), b.numpy(), weight) for a, b, weight in found]


def _verification(
    matrix: Float64[np.ndarray, "3 3"] | None,
    query_points: Points,
    candidate_points: Points,
    inlier_weight: float,
    details: EstimatorDetails | None,
    *,
    needs_inliers: bool,
) -> Verification:
    # A homography that was estimated from matches but explains none of them counts as a failure.
    accepted = len(query_points) > 0 or not needs_inliers
    return Verification(
        matrix if accepted else None,
        float(len(query_points)),
        query_points,
        candidate_points,
        details,
        inlier_weight=inlier_weight,
    )
