"""Contrast of candidates: how far a score stands out from the others of the query, most of which are wrong."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float64

from vpr_dhe.records import RankedMatch

# Standard deviation of a normal distribution per median absolute deviation (Huber, "Robust statistics", 1981,
# section 5.1).
_DEVIATIONS_PER_MAD = 1.4826


def contrasts(matches: Sequence[RankedMatch]) -> Float64[np.ndarray, " matches"]:
    """Robust z-score of each candidate's score within the list.

    Scores are inliers, or similarities if not all candidates were verified. Inliers are counts: they are compared as 2
    sqrt(n + 3/8), whose standard deviation is 1 for Poisson counts, and the estimated deviation is never smaller.

    Source: Anscombe, "The transformation of Poisson, binomial and negative-binomial data", Biometrika 1948.
    """
    if all(match.verification is not None for match in matches):
        scores, least = 2 * np.sqrt(np.array([match.inliers for match in matches]) + 3 / 8), 1.0
    else:
        scores, least = np.array([match.similarity for match in matches]), float(np.finfo(np.float32).eps)
    above = scores - np.median(scores)
    return above / max(least, _DEVIATIONS_PER_MAD * float(np.median(np.abs(above))))
