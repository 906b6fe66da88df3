"""Clocks: stamps that cannot be, and times that jump."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from recordings import FIXES, IMAGES, START_NS, STEP_NS, Bag, small_frames

from vpr_dhe.recordings.bags import open_bag
from vpr_dhe.recordings.clock import StreamClock, choose_clock

RECEIVED = 1.7e9 + 0.25 * np.arange(40)


def changed(times, places, values):
    times = np.array(times, np.float64)
    times[places] = values
    return times


PLAUSIBLE = {
    "on the same clock, a little earlier": RECEIVED - 0.03,
    "of a simulator that starts at 0": RECEIVED - RECEIVED[0],
    "of a simulator at a tenth of the speed": 100 + 0.1 * (RECEIVED - RECEIVED[0]),
    "of a simulator at eight times the speed": 100 + 8 * (RECEIVED - RECEIVED[0]),
    "of another computer, a day ahead": RECEIVED + 86400,
}
IMPLAUSIBLE = {
    "0 in the middle": changed(RECEIVED, [20, 32], 0),
    "0 at the start": changed(RECEIVED, [0, 1], 0),
    "0 at the end": changed(RECEIVED, [39], 0),
    "far ahead once": changed(RECEIVED, [7], 2e9),
    "far ahead at the end": changed(RECEIVED, [39], 4e9),
    "set by an hour": RECEIVED + 3600 * (np.arange(40) >= 20),
    "set back by an hour": RECEIVED - 3600 * (np.arange(40) >= 20),
    "set from 1970": changed(RECEIVED, slice(0, 15), np.arange(15) / 4),
    "of a simulator that started again": 0.25 * (np.arange(40) % 25),
    "standing still": np.full(40, 5.0),
}


@pytest.mark.parametrize("stamps", PLAUSIBLE.values(), ids=PLAUSIBLE)
def test_plausible_stamps_are_the_clock(stamps):
    clock = choose_clock(stamps.tolist(), RECEIVED.tolist())
    assert (clock.by_headers, clock.note) == (True, None)
    np.testing.assert_array_equal(clock.times_s, stamps)


@pytest.mark.parametrize("stamps", IMPLAUSIBLE.values(), ids=IMPLAUSIBLE)
def test_implausible_stamps_leave_the_times_of_recording_to_all(stamps):
    clock = choose_clock(stamps.tolist(), RECEIVED.tolist())
    assert not clock.by_headers
    assert clock.note is not None
    assert "times are those of recording" in clock.note
    np.testing.assert_array_equal(clock.times_s, RECEIVED)


def test_a_pause_that_both_clocks_show_is_plausible():
    pause = 600.0 * (np.arange(40) >= 10)
    assert choose_clock((RECEIVED - 5 + pause).tolist(), (RECEIVED + pause).tolist()).by_headers


def test_unset_stamps_are_no_fault():
    clock = choose_clock([0.0] * 40, RECEIVED.tolist())
    assert (clock.by_headers, clock.note) == (False, None)


def follow(times):
    clock = StreamClock()
    jumps = [clock.advance(float(time)) for time in times]
    return clock, jumps


@pytest.mark.parametrize("by", [3600.0, -3600.0, 60.0, -1.0])
def test_a_jump_of_a_stream_is_a_usual_step(by):
    clock, jumps = follow(RECEIVED + by * (np.arange(40) >= 20))
    assert [number for number, jump in enumerate(jumps) if jump is not None] == [20]
    assert jumps[20] == pytest.approx(by + 0.25)
    assert clock.now_s == pytest.approx(RECEIVED[-1], abs=1e-6)


def test_stamps_of_0_hardly_move_the_clock_of_a_stream():
    clock, _ = follow(changed(RECEIVED, [0, 20, 32], 0))
    assert clock.now_s == pytest.approx(0.25 * 39, abs=1.0)


@pytest.mark.parametrize("step", [0.03, 10.0, 600.0])
def test_steps_of_any_usual_length_are_none(step):
    clock, jumps = follow(1.7e9 + step * np.arange(20))
    assert jumps == [None] * 20
    assert clock.now_s == pytest.approx(1.7e9 + 19 * step)


@given(st.lists(st.floats(-1e10, 1e10), min_size=1, max_size=30))
def test_the_clock_of_a_stream_never_goes_back(times):
    clock, seen = StreamClock(), []
    for time in times:
        clock.advance(time)
        seen.append(clock.now_s)
    assert seen == sorted(seen)


@pytest.mark.parametrize("name", ["drive.bag", "drive-db3", "drive-mcap"])
@pytest.mark.parametrize(("bad", "by_headers"), [((), True), ((0,), False), ((3,), False)])
def test_images_and_fixes_meet_on_one_clock(tmp_path, name, bad, by_headers):
    """Headers on a clock of a simulator; where an image has none, both topics go by the times of recording."""
    bag = Bag(tmp_path / name)
    for number, pixels in enumerate(small_frames(6)):
        stamp_ns = 100 * 10**9 + number * STEP_NS
        bag.received_ns = START_NS + number * STEP_NS
        bag.image(0 if number in bad else stamp_ns, pixels)
        bag.fix(stamp_ns, 48.0 + number, 2.0)
    with open_bag(bag.write(), IMAGES, FIXES) as source:
        frames = list(source.frames())
        notes = source.notes
    start_s = 100.0 if by_headers else START_NS / 1e9
    assert [frame.time_s - start_s for frame in frames] == pytest.approx([0, 0.5, 1, 1.5, 2, 2.5])
    assert [frame.position.latitude_deg for frame in frames] == pytest.approx([48, 49, 50, 51, 52, 53])
    assert [IMAGES in note for note in notes] == ([] if by_headers else [True])
