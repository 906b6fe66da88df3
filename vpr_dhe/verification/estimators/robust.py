"""Robust estimation from matches: RANSAC and its descendants, as OpenCV, PoseLib and kornia have them.

All work in the input frames, where a threshold means the same for images of any size, and all are deterministic: the
same matches give the same homography. Candidates are shared out among threads.
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
# So many tell which candidates of a hundred are hopeless (`benchmarks/profile.md`).
_FIRST_LOOK_ITERATIONS = 300
# Few of the matches between two street views are inliers: with 1500 iterations recall@1 is half a point lower, and with
# 3000 the same (`benchmarks/profile.md`).
_MAX_MAGSAC_ITERATIONS = 2000
_CONFIDENCE = 0.9999
SEED = 0
"""Of all random choices: a figure comes out the same again."""
# kornia draws from the generator that all threads share.
_DRAWING = Lock()
_OPENCV_METHODS = {
    "ransac": (cv2.RANSAC, _MAX_ITERATIONS),
    "magsac": (cv2.USAC_MAGSAC, _MAX_MAGSAC_ITERATIONS),
    "accurate": (cv2.USAC_ACCURATE, _MAX_ITERATIONS),
}

Points = Float64[np.ndarray, "matches 2"]
_Problem: TypeAlias = tuple[Points, Points, float]
"""What `RobustEstimator.fit` is asked."""


class RobustEstimator(HomographyEstimator):
    """A homography per candidate from its matches alone.

    `threshold_px` is the reprojection error, in pixels of the candidate's input, that separates inliers from outliers
    while estimating; None takes the tolerance that the matches state for themselves.
    """

    def __init__(self, threshold_px: float | None = None) -> None:
        self.threshold_px = threshold_px

    def estimate(self, query: View, candidates: Sequence[View]) -> Homographies:
        """Estimate from `View.matches`; fewer than four matches, or no model found, is a failure."""
        if not candidates:
            return Homographies(torch.empty(0, 3, 3, dtype=torch.float64), torch.empty(0, dtype=torch.bool))
        # Threads are left with nothing to do in Python, whose lock they would wait for between estimates.
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
        """Fit target = H * source, or say None."""


class OpenCvEstimator(RobustEstimator):
    """cv2.findHomography with one of its methods, which draws `iterations` samples at most, or as many as is usual."""

    def __init__(self, name: str, threshold_px: float | None = None, *, iterations: int | None = None) -> None:
        super().__init__(threshold_px)
        self.name = name
        self._method, usual = _OPENCV_METHODS[name]
        self.iterations = usual if iterations is None else iterations

    @property
    def first_look(self) -> HomographyEstimator:
        """The same with a few hundred samples."""
        return OpenCvEstimator(self.name, self.threshold_px, iterations=_FIRST_LOOK_ITERATIONS)

    def fit(self, source: Points, target: Points, threshold_px: float) -> Float64[np.ndarray, "3 3"] | None:
        """Fit target = H * source, or say None."""
        try:
            matrix, _ = cv2.findHomography(
                source, target, self._method, threshold_px, maxIters=self.iterations, confidence=_CONFIDENCE
            )
        except cv2.error:
            # The USAC methods raise, where RANSAC says None, on some degenerate sets.
            return None
        return matrix


class PoseLibEstimator(RobustEstimator):
    """PoseLib's LO-RANSAC with its final non-linear refinement; it draws `iterations` samples at most."""

    name = "poselib"

    def __init__(self, threshold_px: float | None = None, *, iterations: int = _MAX_ITERATIONS) -> None:
        super().__init__(threshold_px)
        self.iterations = iterations

    @property
    def first_look(self) -> HomographyEstimator:
        """The same with a few hundred samples."""
        return PoseLibEstimator(self.threshold_px, iterations=_FIRST_LOOK_ITERATIONS)

    def fit(self, source: Points, target: Points, threshold_px: float) -> Float64[np.ndarray, "3 3"] | None:
        """Fit target = H * source, or say None."""
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
    """kornia.geometry.RANSAC, in torch throughout."""

    name = "kornia-ransac"

    def fit(self, source: Points, target: Points, threshold_px: float) -> Float64[np.ndarray, "3 3"] | None:
        """Fit target = H * source, or say None."""
        from kornia.geometry.ransac import RANSAC

        estimator = RANSAC("homography", inl_th=threshold_px, max_iter=10, confidence=_CONFIDENCE)
        with _DRAWING, torch.random.fork_rng(devices=[]):
            torch.manual_seed(SEED)
            matrix, inliers = estimator(torch.from_numpy(source).float(), torch.from_numpy(target).float())
        return matrix.double().numpy() if int(inliers.sum()) >= MIN_MATCHES else None
