"""Robust estimation from matches: the RANSAC methods of OpenCV, PoseLib and kornia.

All work in input frames, where a threshold means the same for images of any size. All are deterministic: the same
matches give the same homography. Candidates are processed in parallel threads.
"""

from abc import abstractmethod
from collections.abc import Sequence
from threading import Lock
from typing import TypeAlias

import cv2
import numpy as np
import torch
from jaxtyping import Float64

from vpr_dhe.geometry.coordinates import homographies_between_originals
from vpr_dhe.geometry.homography import is_usable
from vpr_dhe.records import Matches
from vpr_dhe.runtime.threads import in_parallel
from vpr_dhe.verification.estimators.base import MIN_MATCHES, Homographies, HomographyEstimator, View

_MAX_ITERATIONS = 3000
# Few matches between street views are inliers: 1500 iterations lose half a point of recall@1, 3000 gain nothing
# (`docs/experiments/speed.md`).
_MAX_MAGSAC_ITERATIONS = 2000
_CONFIDENCE = 0.9999
SEED = 0
"""Seed of all random choices."""
# kornia draws from torch's global generator, which all threads share.
_RANDOM_STATE_LOCK = Lock()
_OPENCV_METHODS = {
    "ransac": (cv2.RANSAC, _MAX_ITERATIONS),
    "magsac": (cv2.USAC_MAGSAC, _MAX_MAGSAC_ITERATIONS),
    "accurate": (cv2.USAC_ACCURATE, _MAX_ITERATIONS),
}

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


class OpenCvEstimator(RobustEstimator):
    """cv2.findHomography with one of its methods."""

    coarse_pass = True

    def __init__(self, name: str, threshold_px: float | None = None) -> None:
        super().__init__(threshold_px)
        self.name = name
        self._method, self._iterations = _OPENCV_METHODS[name]

    def fit(self, source: Points, target: Points, threshold_px: float) -> Float64[np.ndarray, "3 3"] | None:
        """Fit target = H * source; None if no model is found."""
        try:
            matrix, _ = cv2.findHomography(
                source, target, self._method, threshold_px, maxIters=self._iterations, confidence=_CONFIDENCE
            )
        except cv2.error:
            # On some degenerate sets the USAC methods raise where RANSAC returns None.
            return None
        return matrix


class PoseLibEstimator(RobustEstimator):
    """PoseLib's LO-RANSAC with its final non-linear refinement, at most `iterations` samples."""

    name = "poselib"
    coarse_pass = True

    def __init__(self, threshold_px: float | None = None, *, iterations: int = _MAX_ITERATIONS) -> None:
        super().__init__(threshold_px)
        self.iterations = iterations

    def fit(self, source: Points, target: Points, threshold_px: float) -> Float64[np.ndarray, "3 3"] | None:
        """Fit target = H * source; None if no model is found."""
        import poselib

        options = {
            "max_reproj_error": threshold_px,
            "max_iterations": self.iterations,
            "success_prob": _CONFIDENCE,
            "seed": SEED,
        }
        matrix, stats = poselib.estimate_homography(source, target, options, {})
        return np.asarray(matrix, np.float64) if stats["num_inliers"] >= MIN_MATCHES else None


class KorniaEstimator(RobustEstimator):
    """kornia.geometry.RANSAC, entirely in torch."""

    name = "kornia-ransac"

    def fit(self, source: Points, target: Points, threshold_px: float) -> Float64[np.ndarray, "3 3"] | None:
        """Fit target = H * source; None if no model is found."""
        from kornia.geometry.ransac import RANSAC

        estimator = RANSAC("homography", inl_th=threshold_px, max_iter=10, confidence=_CONFIDENCE)
        with _RANDOM_STATE_LOCK, torch.random.fork_rng(devices=[]):
            torch.manual_seed(SEED)
            matrix, inliers = estimator(torch.from_numpy(source).float(), torch.from_numpy(target).float())
        return matrix.double().numpy() if int(inliers.sum()) >= MIN_MATCHES else None
