"""How far a candidate stands out of the others of its query: most of them are wrong, and say what wrong ones score."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float64

from vpr_dhe.records import RankedMatch

# The median absolute deviation of a normal distribution times this is its standard deviation (Huber, "Robust
# statistics", 1981, section 5.1).
_DEVIATIONS_PER_MAD = 1.4826


def contrasts(matches: Sequence[RankedMatch]) -> Float64[np.ndarray, " matches"]:
    """How many robust standard deviations each candidate's score lies above the median of the list.

    Scores are inliers, or similarities where not all were verified. Inliers are counts, so they are compared as
    2 sqrt(n + 3/8), whose standard deviation is 1 for Poisson counts; that of a list is never taken to be less.

    Source: Anscombe, "The transformation of Poisson, binomial and negative-binomial data", Biometrika 1948.
    """
    if all(match.verification is not None for match in matches):
        scores, least = 2 * np.sqrt(np.array([match.inliers for match in matches]) + 3 / 8), 1.0
    else:
        scores, least = np.array([match.similarity for match in matches]), float(np.finfo(np.float32).eps)
    above = scores - np.median(scores)
    return above / max(least, _DEVIATIONS_PER_MAD * float(np.median(np.abs(above))))
