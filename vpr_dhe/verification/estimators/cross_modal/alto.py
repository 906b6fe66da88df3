"""AltO: a registration network trained on pairs of two modalities without labels.

Source: Song et al., "Unsupervised Homography Estimation on Multimodal Image Pair via Alternating Optimization", NeurIPS
2024. The paper's other networks are needed for training only.
"""

from vpr_dhe.verification.estimators.cross_modal.registration.estimator import RegistrationEstimator
from vpr_dhe.verification.estimators.resources import Resources


class AltoEstimator(RegistrationEstimator):
    """Estimates with a registration network trained by alternating optimisation."""

    name = "alto"


def build(name: str, resources: Resources) -> RegistrationEstimator:
    """Build the estimator with the network of a file."""
    return AltoEstimator.from_file(resources.networks[name], resources.device)
