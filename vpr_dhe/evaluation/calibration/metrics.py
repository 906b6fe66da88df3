"""Metrics of calibrated probabilities."""

import numpy as np
from jaxtyping import Bool, Float64, Int64

BINS = 10


def brier_score(
    probabilities: Float64[np.ndarray, " answers"],
    right: Bool[np.ndarray, " answers"],
    weights: Float64[np.ndarray, " answers"] | None = None,
) -> float:
    """Mean squared difference between probabilities and outcomes: 0 is perfect, a constant 0.5 scores 0.25.

    Source: Brier, "Verification of forecasts expressed in terms of probability", Monthly Weather Review, 1950.
    """
    return float(np.average((probabilities - right) ** 2, weights=weights))


def expected_calibration_error(
    probabilities: Float64[np.ndarray, " answers"],
    right: Bool[np.ndarray, " answers"],
    weights: Float64[np.ndarray, " answers"] | None = None,
    bins: int = BINS,
) -> float:
    """Mean absolute difference between probability and share of right answers, in bins of equal width; in [0, 1].

    Source: Guo et al., "On calibration of modern neural networks", ICML 2017, equation 3.
    """
    weights = np.ones(len(probabilities)) if weights is None else weights
    gaps = np.bincount(_bin_of(probabilities, bins), weights * (probabilities - right), bins)
    return float(np.abs(gaps).sum() / weights.sum())


def _bin_of(probabilities: Float64[np.ndarray, " answers"], bins: int) -> Int64[np.ndarray, " answers"]:
    """Return the bin of each probability; 1 itself falls in the last bin."""
    return np.minimum((bins * probabilities).astype(np.int64), bins - 1)
