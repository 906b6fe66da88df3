"""RANSAC-Flow in two stages: coarse homographies from many scales, then a fine flow."""

from vpr_dhe.features.base import Extractor
from vpr_dhe.models.network_file import NetworkFile
from vpr_dhe.verification.estimators.base import HomographyEstimator
from vpr_dhe.verification.estimators.ransac_flow.coarse_estimator import CoarseRansacFlowEstimator
from vpr_dhe.verification.estimators.ransac_flow.estimator import NAME, RansacFlowEstimator, RansacFlowSettings

__all__ = ["NAME", "CoarseRansacFlowEstimator", "RansacFlowEstimator", "RansacFlowSettings", "build_ransac_flow"]


def build_ransac_flow(file: NetworkFile | None, extractor: Extractor | None, device: str) -> HomographyEstimator:
    """Build both stages from the network file of the fine one, or without it the coarse stage alone.

    Raises:
        ModelError: if the file's weights are not those of a fine network.
    """
    if file is None:
        return CoarseRansacFlowEstimator(extractor, device)
    return RansacFlowEstimator.from_file(file, extractor, device)
