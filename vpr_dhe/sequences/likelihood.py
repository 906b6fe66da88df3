"""Likelihood ratios of the candidates of one frame: seen from its place against seen from elsewhere.

FAB-MAP (Cummins and Newman, IJRR 2008) learns such likelihoods from co-occurring visual words; Angeli et al. (IEEE T-RO
2008) and RTAB-Map derive them from how far a score stands out from all others. The default here does the latter by a
statistical test, and needs no training.
"""

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float64

from vpr_dhe.errors import BadInputError
from vpr_dhe.localization.robust_scores import contrasts
from vpr_dhe.records import RankedMatch

NO_EVIDENCE = 0.5
"""Ratio of the weakest candidate: the limit of (1 - p + p ln p) / (p ln^2 p) as p tends to 1."""

# Efficiency of the median absolute deviation relative to the standard deviation (Huber, "Robust statistics", 1981,
# section 5.1).
_MAD_EFFICIENCY = 0.37
# Heavier tails than the length of the list alone implies: a wrong candidate may show the right building from afar, or
# another corner with the same pavement. See docs/experiments/notes-training.md, "Tails of the contrast likelihood".
_MAX_DEGREES_OF_FREEDOM = 4.0
# No calibration set supports probabilities closer to 0 or 1.
_MIN_PROBABILITY = 1e-6


@runtime_checkable
class LikelihoodModel(Protocol):
    """Model of how strongly each candidate supports its place.

    A ratio is p(evidence | the frame shows this place) / p(evidence | it shows another); positive, unbounded.
    """

    def ratios(self, matches: Sequence[RankedMatch]) -> Float64[np.ndarray, " matches"]:
        """Likelihood ratio of each candidate of one frame."""
        ...


class ContrastLikelihood:
    """Likelihood ratios from contrast: how unlikely a candidate's score would be among wrong candidates.

    The contrast is converted to p, the upper tail of Student's t, and p to (1 - p + p ln p) / (p ln^2 p): the Bayes
    factor of the density k p^(k - 1), k uniform in (0, 1), against uniform p. Its expectation over wrong candidates is
    1.

    Source: Vovk and Wang, "E-values: calibration, combination and applications", Annals of Statistics 2021, section 2;
    Sellke, Bayarri and Berger, The American Statistician 2001.
    """

    def ratios(self, matches: Sequence[RankedMatch]) -> Float64[np.ndarray, " matches"]:
        """Likelihood ratio of each candidate; all 1 for lists of fewer than three."""
        from scipy.special import stdtr

        if len(matches) < 3:
            return np.ones(len(matches))
        degrees = np.clip(_MAD_EFFICIENCY * len(matches), 1.0, _MAX_DEGREES_OF_FREEDOM)
        tails = stdtr(degrees, -contrasts(matches))
        return _bayes_factors(tails)


class CalibratedLikelihood:
    """Likelihood ratios from calibrated probabilities; `others` handles matches without one.

    By Bayes' rule, a probability p corresponds to the ratio p (1 - s) / ((1 - p) s), where s is the share of right
    matches in the calibration. That is `Calibration.right_share`, not the share of queries whose place is known: some
    of their best matches are wrong, too.

    Args:
        right_share: s, in (0, 1).
        others: model for matches without a probability; `ContrastLikelihood` by default.

    Raises:
        BadInputError: if the share is out of range.
    """

    def __init__(self, right_share: float, others: LikelihoodModel | None = None) -> None:
        if not 0 < right_share < 1:
            raise BadInputError(f"the share of right matches is {right_share}; expected one between 0 and 1")
        self._prior_odds = right_share / (1 - right_share)
        self._others = others or ContrastLikelihood()

    def ratios(self, matches: Sequence[RankedMatch]) -> Float64[np.ndarray, " matches"]:
        """Likelihood ratio of each candidate."""
        ratios = self._others.ratios(matches)
        for row, match in enumerate(matches):
            if match.probability is not None:
                probability = float(np.clip(match.probability, _MIN_PROBABILITY, 1 - _MIN_PROBABILITY))
                ratios[row] = probability / (1 - probability) / self._prior_odds
        return ratios


def _bayes_factors(tails: Float64[np.ndarray, " matches"]) -> Float64[np.ndarray, " matches"]:
    # At p = 1 the formula is 0 / 0; just below, cancellation destroys its digits.
    tails = np.minimum(tails, 1 - 1e-4)
    logarithms = np.log(tails)
    return (1 - tails + tails * logarithms) / (tails * logarithms**2)
