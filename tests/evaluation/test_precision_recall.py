"""Precision and recall against counts made threshold by threshold."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vpr_dhe.evaluation.precision_recall import precision_recall

answers = st.lists(st.tuples(st.integers(0, 6), st.booleans()), min_size=1, max_size=30)


@given(answers, st.integers(1, 10))
def test_every_point_is_what_counting_gives(data, missed):
    scores, right = [float(score) for score, _ in data], [ok for _, ok in data]
    answerable = sum(right) + missed
    curve = precision_recall(scores, right, answerable)
    expected = []
    for threshold in sorted(set(scores), reverse=True):
        given_answers = [ok for score, ok in data if score >= threshold]
        expected.append((100 * sum(given_answers) / len(given_answers), 100 * sum(given_answers) / answerable))
    if any(right):
        points = np.column_stack([curve.precision, curve.recall])
        np.testing.assert_allclose(points, expected)
        assert curve.thresholds.tolist() == sorted(set(scores), reverse=True)
    best = max((recall for precision, recall in expected if precision == 100), default=0.0)
    assert curve.recall_at_full_precision == pytest.approx(best)
    area, before = 0.0, 0.0
    for precision, recall in expected:
        area, before = area + precision * (recall - before) / 100, recall
    assert curve.area == pytest.approx(area)
    assert 0 <= curve.area <= 100


def test_perfect_answers_fill_the_square():
    curve = precision_recall([3.0, 2.0, 1.0], [True, True, True], 3)
    assert (curve.area, curve.recall_at_full_precision) == (100.0, 100.0)


def test_nothing_right_and_nothing_to_find():
    curve = precision_recall([3.0, 2.0], [False, False], 2)
    assert (curve.area, curve.recall_at_full_precision) == (0.0, 0.0)
    assert precision_recall([3.0], [False], 0) is None
    assert precision_recall([], [], 4) is None


def test_a_wrong_answer_above_all_others_ends_full_precision():
    curve = precision_recall([9.0, 5.0, 4.0], [False, True, True], 2)
    assert curve.recall_at_full_precision == 0.0
    np.testing.assert_allclose(curve.precision, [0.0, 50.0, 200 / 3])
