"""Deep homography estimation (DHE): a transformer on the correlation of two local maps."""

from vpr_dhe.verification.estimators.dhe.estimator import DheEstimator, build
from vpr_dhe.verification.estimators.dhe.network import (
    GRID,
    HEAD_NAME,
    INPUT_SIZE,
    DheHead,
    OnnxDheHead,
    PointPairs,
    load_head,
)
from vpr_dhe.verification.estimators.dhe.predictors import predictor

__all__ = [
    "GRID",
    "HEAD_NAME",
    "INPUT_SIZE",
    "DheEstimator",
    "DheHead",
    "OnnxDheHead",
    "PointPairs",
    "build",
    "load_head",
    "predictor",
]
