"""Which frames of a recording are kept."""

import pytest

from vpr_dhe.errors import BadInputError
from vpr_dhe.recordings.base import ImageFile, RecordedFrame
from vpr_dhe.recordings.selection import Selection
from vpr_dhe.records import GeoPosition


def frames(times_s, latitudes=None) -> list[RecordedFrame]:
    positions = [None if latitude is None else GeoPosition(latitude, 2.0) for latitude in latitudes or [None] * 99]
    return [
        RecordedFrame(number, float(time_s), position, lambda: ImageFile(b"", ".png"))
        for number, (time_s, position) in enumerate(zip(times_s, positions, strict=False))
    ]


def kept(selection: Selection, given: list[RecordedFrame]) -> list[int]:
    return [frame.number for frame in selection.of(given)]


def test_by_number_and_time():
    given = frames([0.1 * number for number in range(10)])
    assert kept(Selection(), given) == list(range(10))
    assert kept(Selection(every=4), given) == [0, 4, 8]
    assert kept(Selection(min_seconds=0.3), given) == [0, 3, 6, 9]
    assert kept(Selection(min_seconds=0.31), given) == [0, 4, 8]


def test_a_clock_that_was_set_back_does_not_stop_the_recording():
    assert kept(Selection(min_seconds=1.0), frames([100, 100.5, 101, 3, 3.5, 4])) == [0, 2, 3, 5]


def test_by_distance_frames_without_a_position_are_left_out():
    # A degree of latitude is 111 km here.
    latitudes = [None, 48.0, 48.0 + 5e-6, None, 48.0 + 1e-5, 48.0 + 1.1e-5, 48.0 + 2.1e-5]
    assert kept(Selection(min_metres=1.0), frames(range(7), latitudes)) == [1, 4, 6]


def test_wrong_choices():
    with pytest.raises(BadInputError, match="--every and --min-seconds were given; use one"):
        Selection(every=2, min_seconds=1.0)
    with pytest.raises(BadInputError, match="--min-metres is -1"):
        Selection(min_metres=-1.0)
    with pytest.raises(BadInputError, match="--min-seconds is nan"):
        Selection(min_seconds=float("nan"))


def test_it_says_what_it_keeps():
    assert [str(Selection()), str(Selection(every=3)), str(Selection(min_seconds=0.5))] == [
        "all frames",
        "--every 3",
        "--min-seconds 0.5",
    ]
