"""RANSAC of kornia."""

import numpy as np
import torch
from jaxtyping import Float64

from vpr_dhe.runtime.seeding import seeded
from vpr_dhe.verification.estimators.base import MIN_MATCHES
from vpr_dhe.verification.estimators.resources import Resources
from vpr_dhe.verification.estimators.robust import CONFIDENCE, SEED, Points, RobustEstimator


class KorniaEstimator(RobustEstimator):
    """kornia.geometry.RANSAC, entirely in torch."""

    name = "kornia-ransac"

    def fit(self, source: Points, target: Points, threshold_px: float) -> Float64[np.ndarray, "3 3"] | None:
        """Fit target = H * source; None if no model is found."""
        from kornia.geometry.ransac import RANSAC

        estimator = RANSAC("homography", inl_th=threshold_px, max_iter=10, confidence=CONFIDENCE)
        with seeded(SEED):  # kornia draws from torch's global generator
            matrix, inliers = estimator(torch.from_numpy(source).float(), torch.from_numpy(target).float())
        return matrix.double().numpy() if int(inliers.sum()) >= MIN_MATCHES else None


def build(_name: str, _: Resources) -> KorniaEstimator:
    """Build the estimator."""
    return KorniaEstimator()
