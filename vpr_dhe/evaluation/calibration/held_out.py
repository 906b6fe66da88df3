"""Cross-validation of calibrations over places."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64

from vpr_dhe.errors import BadInputError
from vpr_dhe.evaluation.calibration.fitting import Assumptions, Example, example_weights, fit
from vpr_dhe.evaluation.calibration.metrics import brier_score, expected_calibration_error
from vpr_dhe.localization.calibration.probability import Conditions

FOLDS = 5


@dataclass(frozen=True)
class HeldOutScores:
    """Scores of probabilities on places that they were not fitted on, with queries weighted as in fitting."""

    brier_score: float
    expected_calibration_error: float


def score_held_out(
    examples: Sequence[Example], assumptions: Assumptions, conditions: Conditions
) -> HeldOutScores | None:
    """Cross-validate in five folds that share no place; None if there are too few examples.

    Raises:
        BadInputError: as `fit` does, for all examples.
    """
    probabilities = held_out_probabilities(examples, assumptions, conditions)
    if probabilities is None:
        return None
    right = np.array([example.right for example in examples])
    weights = example_weights(examples, assumptions.prior)
    return HeldOutScores(
        brier_score(probabilities, right, weights), expected_calibration_error(probabilities, right, weights)
    )


def held_out_probabilities(
    examples: Sequence[Example], assumptions: Assumptions, conditions: Conditions
) -> Float64[np.ndarray, " examples"] | None:
    """Compute each example's probability by a calibration fitted without its place.

    None if too few examples remain to fit on when a fold is held out.
    """
    probabilities = np.empty(len(examples))
    for rows in np.array_split(np.arange(len(examples)), FOLDS):
        held_out = [examples[row] for row in rows]
        seen = frozenset[int]().union(*(example.shown_by for example in held_out))
        inside = set(rows.tolist())
        rest = [one for row, one in enumerate(examples) if row not in inside and one.shown_by.isdisjoint(seen)]
        try:
            calibration = fit(rest, assumptions, conditions, images=0)
        except BadInputError:
            return None
        probabilities[rows] = [calibration.probability(example.features) for example in held_out]
    return probabilities
