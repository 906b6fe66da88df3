"""RANSAC of kornia."""

from threading import Lock

import numpy as np
import torch
from jaxtyping import Float64

from vpr_dhe.verification.estimators.base import MIN_MATCHES
from vpr_dhe.verification.estimators.resources import Resources
from vpr_dhe.verification.estimators.robust import CONFIDENCE, SEED, Points, RobustEstimator

# kornia draws from torch's global generator, which all threads share.
_RANDOM_STATE_LOCK = Lock()


class KorniaEstimator(RobustEstimator):
    """kornia.geometry.RANSAC, entirely in torch."""

    name = "kornia-ransac"

    def fit(self, source: Points, target: Points, threshold_px: float) -> Float64[np.ndarray, "3 3"] | None:
        """Fit target = H * source; None if no model is found."""
        from kornia.geometry.ransac import RANSAC

        estimator = RANSAC("homography", inl_th=threshold_px, max_iter=10, confidence=CONFIDENCE)
        with _RANDOM_STATE_LOCK, torch.random.fork_rng(devices=[]):
            torch.manual_seed(SEED)
            matrix, inliers = estimator(torch.from_numpy(source).float(), torch.from_numpy(target).float())
        return matrix.double().numpy() if int(inliers.sum()) >= MIN_MATCHES else None


def build(_name: str, _: Resources) -> KorniaEstimator:
    """Build the estimator."""
    return KorniaEstimator()
