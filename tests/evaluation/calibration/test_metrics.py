"""Measures of probabilities against formulas of another form."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import brier_score_loss

from vpr_dhe.evaluation.calibration.metrics import brier_score, expected_calibration_error

answers = st.lists(
    st.tuples(st.integers(0, 100).map(lambda percent: percent / 100), st.booleans(), st.floats(0.1, 10.0)),
    min_size=1,
    max_size=40,
)


@given(answers, st.integers(1, 12))
def test_the_calibration_error_is_what_going_through_the_bins_gives(data, bins):
    probabilities, right, weights = (np.array(column) for column in zip(*data, strict=True))
    expected = 0.0
    for number in range(bins):
        last = number == bins - 1
        inside = [one for one in data if number <= bins * one[0] and (last or bins * one[0] < number + 1)]
        weight = sum(one[2] for one in inside)
        if inside:
            confidence = sum(one[0] * one[2] for one in inside) / weight
            accuracy = sum(one[1] * one[2] for one in inside) / weight
            expected += weight / weights.sum() * abs(accuracy - confidence)
    assert expected_calibration_error(probabilities, right, weights, bins) == pytest.approx(expected)


@given(answers)
def test_the_brier_score_is_that_of_the_library(data):
    probabilities, right, weights = (np.array(column) for column in zip(*data, strict=True))
    expected = brier_score_loss(right, probabilities, sample_weight=weights, pos_label=True)
    assert brier_score(probabilities, right, weights) == pytest.approx(expected)


def test_perfect_and_worthless_probabilities():
    right = np.array([True, False, True, False])
    perfect, undecided, opposite = right.astype(float), np.full(4, 0.5), 1.0 - right
    assert [brier_score(one, right) for one in (perfect, undecided, opposite)] == [0.0, 0.25, 1.0]
    assert [expected_calibration_error(one, right) for one in (perfect, undecided, opposite)] == [0.0, 0.0, 1.0]
