"""The order in which images were taken, with times that are right, wrong, or of a clock that was set."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vpr_dhe.records import ImageRecord
from vpr_dhe.sequences.frame_order import order_taken
from vpr_dhe.sequences.place_map import PlaceMap

NAMES = [f"{number}.png" for number in range(40)]
TIMES = [1.7e9 + 0.5 * number for number in range(40)]


def with_times(**changes):
    times = list(TIMES)
    for place, time in changes.items():
        times[int(place[1:])] = time
    return times


@pytest.mark.parametrize(
    "times",
    [
        with_times(_0=0.0),
        with_times(_20=0.0, _32=0.0),
        with_times(_5=2e9),
        with_times(_39=0.0),
        [time - 3600 * (number >= 20) for number, time in enumerate(TIMES)],
        [1.7e9, *(0.5 * number for number in range(1, 40))],
    ],
    ids=["first 0", "two 0", "one ahead", "last 0", "set back", "two clocks"],
)
def test_few_wrong_times_leave_the_order_of_names(times):
    shuffled = [*range(20, 40), *range(20)]
    taken = order_taken([NAMES[number] for number in shuffled], [times[number] for number in shuffled])
    assert [shuffled[place] for place in taken.order] == list(range(40))
    assert (taken.note is None) == (times == sorted(times))


def test_wrong_times_become_those_between_their_neighbours():
    taken = order_taken(NAMES, with_times(_20=0.0))
    assert taken.times_s == TIMES
    assert taken.note is not None
    assert "go back 1 time, such as from 1700000009.500 to 0.000 s at 20.png" in taken.note


@pytest.mark.parametrize("names", [["c.jpg", "a.jpg", "b.jpg", "d.jpg"], [f"{number}.jpg" for number in (9, 7, 5, 3)]])
def test_names_without_an_order_leave_it_to_times(names):
    taken = order_taken(names, [1.0, 2.0, 3.0, 4.0])
    assert (taken.order, taken.note) == ([0, 1, 2, 3], None)


@given(st.lists(st.floats(0, 1e9), min_size=1, max_size=30))
def test_every_image_has_its_place(times):
    taken = order_taken([f"{number}.jpg" for number in range(len(times))], times)
    assert sorted(taken.order) == list(range(len(times)))
    if taken.note is None:
        assert [times[place] for place in taken.order] == sorted(times)


def test_a_route_is_not_torn_by_a_stamp_of_0():
    images = [(id, ImageRecord(NAMES[id], timestamp_s=time)) for id, time in enumerate(with_times(_20=0.0))]
    places = PlaceMap(images)
    assert [places.id_of(place) for place in range(40)] == list(range(40))
