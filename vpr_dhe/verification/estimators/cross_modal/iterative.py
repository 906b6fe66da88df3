"""Iterative deep homography estimation (IHN), trained with known homographies.

Source: Cao et al., "Iterative Deep Homography Estimation", CVPR 2022.
"""

from vpr_dhe.verification.estimators.cross_modal.registration.estimator import RegistrationEstimator


class IterativeEstimator(RegistrationEstimator):
    """Estimates with a registration network trained on corner errors."""

    name = "iterative"
