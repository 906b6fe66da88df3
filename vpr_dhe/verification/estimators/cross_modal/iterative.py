"""Iterative deep homography estimation (IHN), trained with known homographies.

Source: Cao et al., "Iterative Deep Homography Estimation", CVPR 2022.
"""

from vpr_dhe.verification.estimators.cross_modal.registration.estimator import RegistrationEstimator
from vpr_dhe.verification.estimators.resources import Resources


class IterativeEstimator(RegistrationEstimator):
    """Estimates with a registration network trained on corner errors."""

    name = "iterative"


def build(name: str, resources: Resources) -> RegistrationEstimator:
    """Build the estimator with the network of a file."""
    return IterativeEstimator.from_file(resources.networks[name], resources.device)
