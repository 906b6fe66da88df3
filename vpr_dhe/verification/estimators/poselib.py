"""LO-RANSAC of PoseLib."""

import numpy as np
from jaxtyping import Float64

from vpr_dhe.verification.estimators.base import MIN_MATCHES
from vpr_dhe.verification.estimators.resources import Resources
from vpr_dhe.verification.estimators.robust import CONFIDENCE, MAX_ITERATIONS, SEED, Points, RobustEstimator


class PoseLibEstimator(RobustEstimator):
    """PoseLib's LO-RANSAC with its final non-linear refinement, at most `iterations` samples."""

    name = "poselib"
    coarse_pass = True

    def __init__(self, threshold_px: float | None = None, *, iterations: int = MAX_ITERATIONS) -> None:
        super().__init__(threshold_px)
        self.iterations = iterations

    def fit(self, source: Points, target: Points, threshold_px: float) -> Float64[np.ndarray, "3 3"] | None:
        """Fit target = H * source; None if no model is found."""
        import poselib

        options = {
            "max_reproj_error": threshold_px,
            "max_iterations": self.iterations,
            "success_prob": CONFIDENCE,
            "seed": SEED,
        }
        matrix, stats = poselib.estimate_homography(source, target, options, {})
        return np.asarray(matrix, np.float64) if stats["num_inliers"] >= MIN_MATCHES else None


def build(_name: str, _: Resources) -> PoseLibEstimator:
    """Build the estimator."""
    return PoseLibEstimator()
