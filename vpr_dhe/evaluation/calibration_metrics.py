"""Do probabilities mean what they say?"""

import numpy as np
from jaxtyping import Bool, Float64, Int64

BINS = 10


def brier_score(
    probabilities: Float64[np.ndarray, " answers"],
    right: Bool[np.ndarray, " answers"],
    weights: Float64[np.ndarray, " answers"] | None = None,
) -> float:
    """The mean square of the difference between a probability and what came true: 0 is perfect, always 0.5 has 0.25.

    Source: Brier, "Verification of forecasts expressed in terms of probability", Monthly Weather Review, 1950.
    """
    return float(np.average((probabilities - right) ** 2, weights=weights))


def expected_calibration_error(
    probabilities: Float64[np.ndarray, " answers"],
    right: Bool[np.ndarray, " answers"],
    weights: Float64[np.ndarray, " answers"] | None = None,
    bins: int = BINS,
) -> float:
    """How far probabilities are from the share of right answers, on average, in bins of one width; in [0, 1].

    Source: Guo et al., "On calibration of modern neural networks", ICML 2017, equation 3.
    """
    weights = np.ones(len(probabilities)) if weights is None else weights
    gaps = np.bincount(_bin_of(probabilities, bins), weights * (probabilities - right), bins)
    return float(np.abs(gaps).sum() / weights.sum())


def _bin_of(probabilities: Float64[np.ndarray, " answers"], bins: int) -> Int64[np.ndarray, " answers"]:
    """The bin of each probability; one that is exactly 1 lies in the last."""
    return np.minimum((bins * probabilities).astype(np.int64), bins - 1)
