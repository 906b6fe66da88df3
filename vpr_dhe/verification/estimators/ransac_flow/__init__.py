"""RANSAC-Flow in two stages: coarse homographies from many scales, then a fine flow."""

from vpr_dhe.verification.estimators.base import HomographyEstimator
from vpr_dhe.verification.estimators.ransac_flow.coarse_estimator import CoarseRansacFlowEstimator
from vpr_dhe.verification.estimators.ransac_flow.estimator import NAME, RansacFlowEstimator, RansacFlowSettings
from vpr_dhe.verification.estimators.resources import Resources

__all__ = ["NAME", "CoarseRansacFlowEstimator", "RansacFlowEstimator", "RansacFlowSettings", "build"]


def build(name: str, resources: Resources) -> HomographyEstimator:
    """Build both stages from the network file of the fine one, or without it the coarse stage alone.

    Raises:
        ModelError: if the file's weights are not those of a fine network.
    """
    if name not in resources.networks:
        return CoarseRansacFlowEstimator(resources.extractor, resources.device)
    return RansacFlowEstimator.from_file(resources.networks[name], resources.extractor, resources.device)
