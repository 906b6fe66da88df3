"""Verify candidates by geometry: any estimator's homographies, one score for all."""

from collections.abc import Sequence
from functools import partial

import numpy as np
import torch
from jaxtyping import Float64

from vpr_dhe.geometry.coordinates import homographies_between_inputs, to_originals
from vpr_dhe.geometry.homography import reprojection_errors
from vpr_dhe.records import Evidence, Matches, Verification
from vpr_dhe.runtime.threads import on_one_core
from vpr_dhe.verification.estimators.base import MIN_MATCHES, Homographies, HomographyEstimator, View

# With fewer, recall@20 is lower than when all of a hundred get the whole estimate (`benchmarks/profile.md`).
PROMISING = 40

Points = Float64[np.ndarray, "matches 2"]


class Verifier:
    """Scores candidates by how many of their mutual matches a homography explains: one score for all estimators.

    `inlier_threshold_px` is measured in pixels of the candidate's input frame; None takes the tolerance that the
    matches state for themselves. Where the estimator has a first look, all candidates get that, and only the
    `promising` best of them the whole estimate; with None, all get it at once.
    """

    def __init__(
        self,
        estimator: HomographyEstimator,
        inlier_threshold_px: float | None = None,
        *,
        promising: int | None = PROMISING,
    ) -> None:
        self.estimator = estimator
        self.inlier_threshold_px, self.promising = inlier_threshold_px, promising

    def verify(self, query: View, candidates: Sequence[View]) -> list[Verification]:
        """Verify each candidate; a failed estimate, or one from fewer than four matches, scores 0.

        Source: Lu et al., "Deep Homography Estimation for Visual Place Recognition", AAAI 2024, section 3.4.
        """
        first_look = self.estimator.first_look
        if first_look is None or self.promising is None or len(candidates) <= self.promising:
            return self._verify_by(self.estimator, query, candidates)
        found = self._verify_by(first_look, query, candidates)
        promising = sorted(range(len(found)), key=lambda place: found[place].inliers, reverse=True)[: self.promising]
        again = self._verify_by(self.estimator, query, [candidates[place] for place in promising])
        for place, verification in zip(promising, again, strict=True):
            if verification.inliers >= found[place].inliers:
                found[place] = verification
        return found

    def _verify_by(self, estimator: HomographyEstimator, query: View, candidates: Sequence[View]) -> list[Verification]:
        if not candidates:
            return []
        homographies = estimator.estimate(query, candidates)
        matches = [view.matches for view in candidates]  # which all cores work on
        inliers = on_one_core(partial(self._inliers, query, candidates, matches), homographies)
        matrices, valid = homographies.matrices.cpu().numpy(), homographies.valid.tolist()
        evidence = homographies.evidence or (None,) * len(candidates)
        return [
            self._verification(matrices[place] if valid[place] else None, *inliers[place], evidence[place])
            for place in range(len(candidates))
        ]

    def _verification(
        self,
        matrix: Float64[np.ndarray, "3 3"] | None,
        query_points: Points,
        candidate_points: Points,
        evidence: Evidence | None,
    ) -> Verification:
        # What was estimated from matches and explains none of them is nothing.
        stands = len(query_points) > 0 or self.estimator.looks_at_images
        return Verification(
            matrix if stands else None, float(len(query_points)), query_points, candidate_points, evidence
        )

    def _threshold_px(self, matches: Matches) -> float:
        return matches.tolerance_px if self.inlier_threshold_px is None else self.inlier_threshold_px

    def _inliers(
        self, query: View, candidates: Sequence[View], matches: Sequence[Matches], homographies: Homographies
    ) -> list[tuple[Points, Points]]:
        """The matches below the threshold, in original pixels of the query and of each candidate.

        The matches of all candidates are computed at once, each by the homography of the candidate that it is `of`.
        """
        frames = [view.frame for view in candidates]
        source = torch.cat([match.query_points.cpu() for match in matches])
        target = torch.cat([match.candidate_points.cpu() for match in matches])
        lengths = torch.tensor([len(match.similarity) for match in matches])
        of = torch.arange(len(matches)).repeat_interleave(lengths)
        in_inputs = homographies_between_inputs(homographies.matrices.cpu(), query.frame, frames)
        errors_px = reprojection_errors(in_inputs[of], source[:, None], target[:, None])[:, 0]
        threshold_px = torch.tensor([self._threshold_px(match) for match in matches], dtype=torch.float64)
        considered = homographies.valid.cpu() & (lengths >= MIN_MATCHES)
        close = (errors_px < threshold_px[of]) & considered[of]
        source, target, of = source[close], target[close], of[close]
        counts = of.bincount(minlength=len(matches)).tolist()
        query_points = to_originals(source, [query.frame] * len(frames), of).split(counts)
        candidate_points = to_originals(target, frames, of).split(counts)
        return [(ours.numpy(), theirs.numpy()) for ours, theirs in zip(query_points, candidate_points, strict=True)]
