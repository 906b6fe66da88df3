"""Samples that are spread evenly."""

import pytest

from vpr_dhe.runtime.sampling import evenly_spread


@pytest.mark.parametrize(
    ("total", "count", "expected"),
    [(10, 4, [0, 3, 6, 9]), (3, 5, [0, 1, 2]), (5, 1, [0]), (0, 3, []), (1, 1, [0])],
)
def test_samples_reach_from_the_first_to_the_last(total, count, expected):
    assert evenly_spread(total, count).tolist() == expected


def test_samples_without_the_last_stand_for_as_many_each():
    assert evenly_spread(12, 4, with_last=False).tolist() == [0, 3, 6, 9]
    assert evenly_spread(2, 4, with_last=False).tolist() == [0, 1]
    assert evenly_spread(0, 4, with_last=False).tolist() == []


def test_as_many_are_chosen_as_are_asked_for():
    assert all(len(evenly_spread(total, count)) == count for total in range(1, 120) for count in range(1, total + 1))
