"""Contrast of candidates: how far a score stands out from the others of the query, most of which are wrong."""

from collections.abc import Sequence
from typing import TypeAlias

import numpy as np
from jaxtyping import Float64, Shaped

from vpr_dhe.records import RankedMatch

# Standard deviation of a normal distribution per median absolute deviation (Huber, "Robust statistics", 1981,
# section 5.1).
_DEVIATIONS_PER_MAD = 1.4826

# Smaller differences of cosines than this do not stand out, however alike the others are.
_MIN_SIMILARITY_DEVIATION = 0.01

MEDIAN = 0.5
CHANCE_QUANTILE = 0.25
"""Quantile of the level of chance, where most candidates may be right: a coarse pass or an early stop left them."""

Counts: TypeAlias = Sequence[int] | Float64[np.ndarray, " candidates"]
"""Numbers of inliers, or weighted ones."""


def contrasts(matches: Sequence[RankedMatch]) -> Float64[np.ndarray, " matches"]:
    """Robust z-score of each candidate's score within the list: of inliers, or of similarities without a verifier.

    Where candidates were skipped, those verified were the most likely ones: then chance is their lower quartile, and
    what was skipped does not stand out.
    """
    if any(match.verification is None for match in matches):
        return robust_z_scores([match.similarity for match in matches], float(np.finfo(np.float32).eps))
    verified = np.array([not match.skipped for match in matches], bool)
    quantile = MEDIAN if verified.all() else CHANCE_QUANTILE
    found = np.zeros(len(matches))
    found[verified] = inlier_contrasts([match.inliers for match in matches if not match.skipped], quantile)
    return found


def chance_level(inliers: Sequence[int]) -> float:
    """Level of chance among candidates of which up to three quarters may be right, as `stabilised` counts."""
    return float(np.quantile(stabilised(inliers), CHANCE_QUANTILE))


def inlier_contrasts(inliers: Counts, quantile: float = MEDIAN) -> Float64[np.ndarray, " candidates"]:
    """Robust z-scores of numbers of inliers, above a quantile.

    Counts are compared as 2 sqrt(n + 3/8), whose standard deviation is 1 for Poisson counts; the estimated deviation is
    never smaller.

    Source: Anscombe, "The transformation of Poisson, binomial and negative-binomial data", Biometrika 1948.
    """
    return robust_z_scores(stabilised(inliers), 1.0, quantile)


def similarity_contrasts(similarities: Sequence[float]) -> Float64[np.ndarray, " candidates"]:
    """Robust z-scores of similarities, above their median."""
    return robust_z_scores(similarities, _MIN_SIMILARITY_DEVIATION)


def stabilised(counts: Counts) -> Float64[np.ndarray, " candidates"]:
    """Transform Poisson counts to numbers whose standard deviation is 1, as for `inlier_contrasts`."""
    return 2 * np.sqrt(np.asarray(counts, np.float64) + 3 / 8)


def robust_z_scores(
    scores: Sequence[float] | Shaped[np.ndarray, " candidates"], min_deviation: float, quantile: float = MEDIAN
) -> Float64[np.ndarray, " candidates"]:
    """Distance of each score from a quantile, in standard deviations estimated by the median absolute distance.

    Without scores, an empty array.
    """
    above = np.asarray(scores, np.float64)
    if not above.size:
        return above
    above = above - np.quantile(above, quantile)
    return above / max(min_deviation, _DEVIATIONS_PER_MAD * float(np.median(np.abs(above))))
