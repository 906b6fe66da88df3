"""Loops of streams whose clock jumps and whose camera is covered now and then."""

import numpy as np
import pytest

from tests.sequences.conftest import views
from tests.shared.blanks import blank_aware, noise
from vpr_dhe.errors import ImageError
from vpr_dhe.index.grey_levels import find_grey_levels
from vpr_dhe.localization.localizer import Localizer
from vpr_dhe.records import NOT_VERIFIED, Belief, Localization, PlaceBelief, RankedMatch, Timing, Verification
from vpr_dhe.sequences.frame_gaps import Pace
from vpr_dhe.sequences.frame_memory import FrameMemory, Recent
from vpr_dhe.sequences.frames import SequenceFrame
from vpr_dhe.sequences.loops import _first_frames, loops_among
from vpr_dhe.sequences.motion import RouteMotion
from vpr_dhe.sequences.odometry import Step
from vpr_dhe.sequences.sequence_localizer import LocalizedFrame, SequenceLocalizer

TIMES = 1.7e9 + np.arange(22.0)


def loops_of(images, times, index, verifier, extractor):
    with FrameMemory(index, verifier, recent=Recent(frames=0, seconds=8.0), flush_every=5) as memory:
        sequence = SequenceLocalizer(Localizer(memory, extractor, rerank=20), memory)
        tracker = sequence.tracker(sequence.place_map(), RouteMotion(slowest=-2))
        frames = [
            SequenceFrame(pixels, float(time), name=f"{number}.jpg")
            for number, (pixels, time) in enumerate(zip(images, times, strict=True))
        ]
        found = list(loops_among(sequence.stream(frames, tracker=tracker, top_k=20), 0.5))
    return [(int(loop.query.split(".")[0]), int(loop.match.image.split(".")[0])) for loop in found]


@pytest.mark.parametrize(
    "times",
    [
        np.where(np.isin(np.arange(22), [12, 16]), 0.0, TIMES),
        TIMES + 3600 * (np.arange(22) >= 12),
        TIMES - 3600 * (np.arange(22) >= 12),
        TIMES + 40 * (np.arange(22) >= 12),
    ],
    ids=["0", "an hour ahead", "an hour back", "40 s ahead"],
)
def test_a_camera_that_never_comes_back_closes_no_loop_at_a_jump(times, empty_index, verifier, thumbnail_extractor):
    images = views((24.0 * np.arange(22)).tolist())
    assert loops_of(images, times, empty_index, verifier, thumbnail_extractor) == []


@pytest.fixture(scope="module")
def long_laps():
    starts_px = 60.0 * np.arange(22)
    return views(starts_px.tolist()) + views((starts_px + 3).tolist(), brightness=0.8)


def test_loops_across_a_jump_are_closed(long_laps, empty_index, verifier, thumbnail_extractor):
    times = 1.7e9 + np.arange(44.0) + 3600 * (np.arange(44) >= 9)
    found = loops_of(long_laps, times, empty_index, verifier, thumbnail_extractor)
    # Of a thumbnail's few cells, some lists tell too little for one frame or another.
    assert len({query for query, _ in found} & set(range(27, 38))) >= 10
    assert all(query - image == 22 for query, image in found)


@pytest.mark.parametrize("verified", [True, False])
def test_blank_frames_are_neither_end_of_a_loop(long_laps, empty_index, verifier, thumbnail_extractor, verified):
    images, covered = list(long_laps), {2, 3, 26, 30}
    for number in covered:
        images[number] = noise(4, 2, (72, 96), seed=number)
    extractor = blank_aware(thumbnail_extractor)
    found = loops_of(images, 1.7e9 + np.arange(44.0), empty_index, verifier if verified else None, extractor)
    assert {query for query, _ in found} >= {33}
    assert covered.isdisjoint(number for pair in found for number in pair)


def test_a_clock_that_is_set_back_takes_a_usual_step():
    pace = Pace()
    steps = [pace.step_to(SequenceFrame(np.zeros((1, 1, 3)), time)) for time in (10.0, 10.5, 11.0, 3.0, 3.5)]
    assert [step.seconds for step in steps[1:]] == [0.5, 0.5, 0.5, 0.5]
    assert steps[3] == Step(1, 0.5)


def test_a_pair_without_a_homography_closes_no_loop():
    place = Belief((PlaceBelief("a.jpg", 0.9, None),), 0.05)

    def frame(verification):
        match = RankedMatch(1, "a.jpg", 0.5, 0.0, verification, None)
        return LocalizedFrame(7, "b.jpg", 1.0, 0, Localization((match,), Timing(0.0, 0.0, 0.0)), belief=place)

    found = Verification(np.eye(3), 9.0, np.zeros((9, 2)), np.zeros((9, 2)))
    assert [loop.query for loop in loops_among([frame(NOT_VERIFIED), frame(found), frame(None)], 0.5)] == ["b.jpg"] * 2


def test_the_first_frame_that_can_be_read_decides_on_the_grey_levels():
    def unreadable():
        raise ImageError("damaged")

    deep = np.linspace(7000, 8000, 4096).astype(np.uint16).reshape(64, 64)
    frames = [SequenceFrame(unreadable), *(SequenceFrame(deep) for _ in range(3))]
    read, levels = _first_frames(frames[:1], iter(frames[1:]))
    assert len(read) == 4
    assert levels == find_grey_levels([deep])
    # A stream of nothing that can be read ends.
    assert _first_frames(frames[:1], iter([])) == (frames[:1], None)
    assert _first_frames([], iter([])) == ([], None)
