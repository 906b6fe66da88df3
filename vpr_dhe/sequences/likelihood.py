"""From the candidates of one frame to likelihood ratios: how much likelier each is seen from its place than elsewhere.

FAB-MAP (Cummins and Newman, IJRR 2008) learns such likelihoods from words seen together, Angeli et al. (IEEE T-RO 2008)
and RTAB-Map take them from how far a score stands out of all others. So does the default here, by a test instead of a
heuristic, and it needs no training.
"""

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float64

from vpr_dhe.errors import BadInputError
from vpr_dhe.localization.contrast import contrasts
from vpr_dhe.records import RankedMatch

NO_EVIDENCE = 0.5
"""The ratio of the weakest candidate: what (1 - p + p ln p) / (p ln^2 p) tends to as p tends to 1."""

# A median absolute deviation knows as much as a standard deviation of this share of as many samples (Huber, "Robust
# statistics", 1981, section 5.1).
_MAD_EFFICIENCY = 0.37
# A wrong candidate may show the right building from afar, so tails are heavier than a long list alone makes them. With
# as many degrees of freedom at most, 4 to 5 deviations are a ratio of 11 to 25; on two data sets right candidates are
# 30 and 17 times as frequent there as wrong ones (`benchmarks/sequences.py`).
_MOST_DEGREES_OF_FREEDOM = 7.0
# Beyond, a probability says more than any calibration set can support.
_LEAST_PROBABILITY = 1e-6


@runtime_checkable
class LikelihoodModel(Protocol):
    """Says how much each candidate's evidence speaks for its place.

    A ratio is p(evidence | the frame shows this place) / p(evidence | it shows another), from 0 to any size.
    """

    def ratios(self, matches: Sequence[RankedMatch]) -> Float64[np.ndarray, " matches"]:
        """One ratio for each candidate of one frame."""
        ...


class ContrastLikelihood:
    """Ratios by contrast: how little a candidate's score would be expected among wrong candidates.

    How far it stands out of the list becomes p, the upper tail of Student's t, and that (1 - p + p ln p) / (p ln^2 p):
    the Bayes factor of p of density k p^(k - 1), k uniform in (0, 1), against p uniform. Of wrong candidates its
    expectation is 1.

    Source: Vovk and Wang, "E-values: calibration, combination and applications", Annals of Statistics 2021, section 2;
    Sellke, Bayarri and Berger, The American Statistician 2001.
    """

    def ratios(self, matches: Sequence[RankedMatch]) -> Float64[np.ndarray, " matches"]:
        """One ratio for each candidate; all are 1 where the list is too short to compare with itself."""
        from scipy.special import stdtr

        if len(matches) < 3:
            return np.ones(len(matches))
        degrees = np.clip(_MAD_EFFICIENCY * len(matches), 1.0, _MOST_DEGREES_OF_FREEDOM)
        tails = stdtr(degrees, -contrasts(matches))
        return _bayes_factors(tails)


class CalibratedLikelihood:
    """Ratios of calibrated probabilities where a match has one; `others` answers for the rest.

    A probability p, calibrated where a share s of the matches was right, is the ratio p (1 - s) / ((1 - p) s): Bayes'
    rule, solved for what the evidence added. That is `Calibration.right_share`, not the share of queries whose place is
    known: of these, too, some best matches are wrong.

    Raises:
        BadInputError: unless the share lies between 0 and 1.
    """

    def __init__(self, right_share: float, others: LikelihoodModel | None = None) -> None:
        if not 0 < right_share < 1:
            raise BadInputError(f"the share of right matches is {right_share}; expected one between 0 and 1")
        self._prior_odds = right_share / (1 - right_share)
        self._others = others or ContrastLikelihood()

    def ratios(self, matches: Sequence[RankedMatch]) -> Float64[np.ndarray, " matches"]:
        """One ratio for each candidate."""
        ratios = self._others.ratios(matches)
        for place, match in enumerate(matches):
            if match.probability is not None:
                probability = float(np.clip(match.probability, _LEAST_PROBABILITY, 1 - _LEAST_PROBABILITY))
                ratios[place] = probability / (1 - probability) / self._prior_odds
        return ratios


def _bayes_factors(tails: Float64[np.ndarray, " matches"]) -> Float64[np.ndarray, " matches"]:
    # At p = 1 the formula is 0 / 0, and just below it has lost its digits.
    tails = np.minimum(tails, 1 - 1e-4)
    logarithms = np.log(tails)
    return (1 - tails + tails * logarithms) / (tails * logarithms**2)
