"""Recall@N and mAP@N against their definitions."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vpr_dhe.evaluation.recall import Denominator, counted_queries, mean_average_precision_at, recall_at

queries = st.lists(
    st.tuples(st.permutations(range(12)), st.sets(st.integers(0, 11), max_size=4)), min_size=1, max_size=20
)


@given(queries)
def test_recall_agrees_with_its_definition(data):
    predictions = [list(rows) for rows, _ in data]
    positives = [np.array(sorted(right), dtype=np.int64) for _, right in data]
    found = recall_at(predictions, positives, [1, 5, 10])
    for rank in (1, 5, 10):
        right = sum(any(row in wanted for row in rows[:rank]) for rows, wanted in data)
        assert found[rank] == 100.0 * right / len(data)
    assert found[1] <= found[5] <= found[10]


def average_precision(rows: list[int], right: set[int], rank: int) -> float:
    """The definition, rank by rank."""
    total, hits = 0.0, 0
    for place, row in enumerate(rows[:rank], start=1):
        if row in right:
            hits += 1
            total += hits / place
    return total / min(len(right), rank)


@given(queries.filter(lambda data: any(right for _, right in data)))
def test_mean_average_precision_agrees_with_its_definition(data):
    predictions = [list(rows) for rows, _ in data]
    positives = [np.array(sorted(right), dtype=np.int64) for _, right in data]
    wanted = [right for _, right in data]
    found = mean_average_precision_at(predictions, positives, [1, 5, 20])
    for rank in (1, 5, 20):
        each = [average_precision(rows, right, rank) for rows, right in zip(predictions, wanted, strict=True) if right]
        assert found[rank] == pytest.approx(100.0 * sum(each) / len(each))


def test_mean_average_precision_of_an_example_worked_by_hand():
    # Right at ranks 1 and 3 of two positives: (1/1 + 2/3) / 2; nothing found: 0; without positives: left out.
    positives = [np.array([4, 7]), np.array([9]), np.array([], dtype=np.int64)]
    found = mean_average_precision_at([[4, 1, 7], [1, 2, 3], [1, 2, 3]], positives, [3])
    assert found[3] == pytest.approx(100 * ((1 + 2 / 3) / 2 + 0) / 2)


def test_a_query_without_answer_or_without_positive_is_missed():
    positives = [np.array([0]), np.array([], dtype=np.int64), np.array([2])]
    assert recall_at([[], [0], [1, 2]], positives, [1, 2]) == {1: 0.0, 2: 100.0 / 3}


def test_the_denominator_says_which_queries_count():
    positives = [np.array([0]), np.array([], dtype=np.int64), np.array([2])]
    assert counted_queries(positives, Denominator.all) == [0, 1, 2]
    assert counted_queries(positives, Denominator.with_positive) == [0, 2]
