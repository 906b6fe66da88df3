"""Recall@N against its definition."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from vpr_dhe.evaluation.recall import recall_at

queries = st.lists(
    st.tuples(st.permutations(range(12)), st.sets(st.integers(0, 11), max_size=4)), min_size=1, max_size=20
)


@given(queries)
def test_agrees_with_the_definition(data):
    predictions = [list(rows) for rows, _ in data]
    positives = [np.array(sorted(right), dtype=np.int64) for _, right in data]
    found = recall_at(predictions, positives, [1, 5, 10])
    for rank in (1, 5, 10):
        right = sum(any(row in wanted for row in rows[:rank]) for rows, wanted in data)
        assert found[rank] == 100.0 * right / len(data)
    assert found[1] <= found[5] <= found[10]


def test_a_query_without_answer_or_without_positive_is_missed():
    positives = [np.array([0]), np.array([], dtype=np.int64), np.array([2])]
    assert recall_at([[], [0], [1, 2]], positives, [1, 2]) == {1: 0.0, 2: 100.0 / 3}
