"""AltO: a registration network that learned from pairs of two modalities without labels.

Source: Song et al., "Unsupervised Homography Estimation on Multimodal Image Pair via Alternating Optimization", NeurIPS
2024. What is learned beside the registration network serves training alone.
"""

from vpr_dhe.verification.estimators.cross_modal.registration.estimator import RegistrationEstimator


class AltoEstimator(RegistrationEstimator):
    """Estimates with a registration network that learned by alternating optimisation."""

    name = "alto"
