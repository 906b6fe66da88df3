"""RANSAC-Flow in two stages: coarse homographies from many scales, then a fine flow."""

from vpr_dhe.verification.estimators.ransac_flow.estimator import NAME, RansacFlowEstimator, RansacFlowSettings

__all__ = ["NAME", "RansacFlowEstimator", "RansacFlowSettings"]
