"""Probabilities of places that a calibration was not fitted on."""

import numpy as np
import pytest

from vpr_dhe.evaluation.calibration import held_out
from vpr_dhe.evaluation.calibration.fitting import Assumptions, Example
from vpr_dhe.evaluation.calibration.held_out import held_out_probabilities, score_held_out
from vpr_dhe.localization.calibration.features import CalibrationFeatures
from vpr_dhe.localization.calibration.probability import Conditions

CONDITIONS = Conditions("thumbnail", "magsac", 6)
ASSUMPTIONS = Assumptions(25.0)


def marked(number: int, place: int) -> Example:
    """An example that only one of the same place could explain: its score is that of its place."""
    features = CalibrationFeatures(float(place), 0.5, 0.0)
    return Example(features, number % 2 == 0, number % 2 == 0, frozenset([place]))


def test_no_place_is_both_learned_from_and_held_out(monkeypatch):
    examples = [marked(number, number // 8) for number in range(80)]
    learned_from: list[set[frozenset[int]]] = []

    def watched(rest, *arguments, **options):
        learned_from.append({example.shown_by for example in rest})
        return fit(rest, *arguments, **options)

    fit = held_out.fit
    monkeypatch.setattr(held_out, "fit", watched)
    assert held_out_probabilities(examples, ASSUMPTIONS, CONDITIONS) is not None
    everywhere = {example.shown_by for example in examples}
    for seen, rows in zip(learned_from, np.array_split(np.arange(80), 5), strict=True):
        assert seen == everywhere - {examples[row].shown_by for row in rows}


def test_too_few_places_are_not_scored_on_others():
    assert score_held_out([marked(number, 0) for number in range(20)], ASSUMPTIONS, CONDITIONS) is None
    scores = score_held_out([marked(number, number // 2) for number in range(40)], ASSUMPTIONS, CONDITIONS)
    assert scores.brier_score == pytest.approx(0.25, abs=0.05)
