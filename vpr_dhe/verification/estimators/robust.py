"""Base of the estimators that fit a homography to matches by random sampling.

All work in input frames, where a threshold means the same for images of any size. All are deterministic: the same
matches give the same homography. Candidates are processed in parallel threads.
"""

from abc import abstractmethod
from collections.abc import Sequence
from typing import TypeAlias

import numpy as np
import torch
from jaxtyping import Float64

from vpr_dhe.geometry.coordinates import homographies_between_originals
from vpr_dhe.geometry.homography import is_usable
from vpr_dhe.records import Matches
from vpr_dhe.runtime.threads import in_parallel
from vpr_dhe.verification.estimators.base import MIN_MATCHES, Homographies, HomographyEstimator, View

MAX_ITERATIONS = 3000
CONFIDENCE = 0.9999
SEED = 0
"""Seed of all random choices."""

Points = Float64[np.ndarray, "matches 2"]
_Problem: TypeAlias = tuple[Points, Points, float]
"""Arguments of `RobustEstimator.fit`."""


class RobustEstimator(HomographyEstimator):
    """Estimator of homographies from matches alone.

    `threshold_px` is the reprojection error, in pixels of the candidate's input, that separates inliers from outliers
    while estimating; None takes `Matches.tolerance_px`.
    """

    def __init__(self, threshold_px: float | None = None) -> None:
        self.threshold_px = threshold_px

    def estimate(self, query: View, candidates: Sequence[View]) -> Homographies:
        """Estimate from `View.matches`; fewer than four matches are a failure."""
        if not candidates:
            return Homographies(torch.empty(0, 3, 3, dtype=torch.float64), torch.empty(0, dtype=torch.bool))
        # Threads get arrays alone: for work in Python they would wait for its lock.
        fits = in_parallel(self._fit_or_none, [self._problem(candidate.matches) for candidate in candidates])
        estimated = torch.tensor([fit is not None for fit in fits], dtype=torch.bool)
        matrices = torch.from_numpy(np.stack([np.eye(3) if fit is None else fit for fit in fits]))
        matrices = homographies_between_originals(matrices, query.frame, [view.frame for view in candidates])
        return Homographies.of(matrices, estimated & is_usable(matrices))

    def _problem(self, matches: Matches) -> _Problem:
        threshold_px = self.threshold_px if self.threshold_px is not None else matches.tolerance_px
        return matches.query_points.cpu().numpy(), matches.candidate_points.cpu().numpy(), threshold_px

    def _fit_or_none(self, problem: _Problem) -> Float64[np.ndarray, "3 3"] | None:
        return None if len(problem[0]) < MIN_MATCHES else self.fit(*problem)

    @abstractmethod
    def fit(self, source: Points, target: Points, threshold_px: float) -> Float64[np.ndarray, "3 3"] | None:
        """Fit target = H * source; None if no model is found."""
