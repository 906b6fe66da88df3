"""RANSAC, MAGSAC++ and graph-cut RANSAC of OpenCV."""

import cv2
import numpy as np
from jaxtyping import Float64

from vpr_dhe.verification.estimators.resources import Resources
from vpr_dhe.verification.estimators.robust import CONFIDENCE, MAX_ITERATIONS, Points, RobustEstimator

# Few matches between street views are inliers: 1500 iterations lose half a point of recall@1, 3000 gain nothing
# (`docs/experiments/speed.md`).
_MAX_MAGSAC_ITERATIONS = 2000
_METHODS = {
    "ransac": (cv2.RANSAC, MAX_ITERATIONS),
    "magsac": (cv2.USAC_MAGSAC, _MAX_MAGSAC_ITERATIONS),
    "accurate": (cv2.USAC_ACCURATE, MAX_ITERATIONS),
}


class OpenCvEstimator(RobustEstimator):
    """cv2.findHomography with one of its methods."""

    coarse_pass = True

    def __init__(self, name: str, threshold_px: float | None = None) -> None:
        super().__init__(threshold_px)
        self.name = name
        self._method, self._iterations = _METHODS[name]

    def fit(self, source: Points, target: Points, threshold_px: float) -> Float64[np.ndarray, "3 3"] | None:
        """Fit target = H * source; None if no model is found."""
        try:
            matrix, _ = cv2.findHomography(
                source, target, self._method, threshold_px, maxIters=self._iterations, confidence=CONFIDENCE
            )
        except cv2.error:
            # On some degenerate sets the USAC methods raise where RANSAC returns None.
            return None
        return matrix


def build(name: str, _: Resources) -> OpenCvEstimator:
    """Build the estimator of a method of OpenCV."""
    return OpenCvEstimator(name)
