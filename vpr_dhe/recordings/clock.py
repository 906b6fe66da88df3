"""Clocks of recordings: which of two to trust, and where one jumps.

Stamps of headers are when images were taken, but simulators leave some at 0, and clocks are set while recording. Times
of reception come from one clock and are in order, but later than the images by whatever lay between.
"""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

import numpy as np
from jaxtyping import Bool, Float64

# A longer step than this, and than so many usual ones, is a jump unless another clock shows it too.
_MIN_JUMP_S = 5.0
_JUMP_STEPS = 10
# Longer first steps, which nothing is known to compare with, are jumps.
_MAX_FIRST_STEP_S = 3600.0
_WINDOW = 15
_CLOCK_ERROR_S = 1e-6

Times = Float64[np.ndarray, " frames"]


@dataclass(frozen=True)
class TopicClock:
    """Times of the messages of one topic, all by one clock.

    `by_headers` tells whether by stamps of headers, `received_s` are the times of reception, and `note` says why stamps
    are not trusted; None if they are, or if none is set.
    """

    times_s: Times
    received_s: Times
    by_headers: bool
    note: str | None = None


def choose_clock(stamps_s: Sequence[float], received_s: Sequence[float]) -> TopicClock:
    """Choose the stamps of headers, unless they are implausible; then the times of reception.

    Stamps are implausible if one goes back, leaps without the clock of reception, or if they stand still.

    Args:
        stamps_s: seconds by the headers of the messages of a topic, 0 if not set.
        received_s: seconds of reception, of the same messages.
    """
    stamps, received = np.array(stamps_s, np.float64), np.array(received_s, np.float64)
    if not stamps.any():
        return TopicClock(received, received, by_headers=False)
    jumps = np.flatnonzero(_implausible_steps(stamps, received))
    stands_still = len(stamps) > 1 and not np.ptp(stamps) and np.ptp(received) > 0
    if not len(jumps) and not stands_still:
        return TopicClock(stamps, received, by_headers=True)
    if stands_still:
        fault = f"stamps of headers stand still at {stamps[0]:.3f} s"
    else:
        before, after = stamps[jumps[0] : jumps[0] + 2]
        times = "once" if len(jumps) == 1 else f"{len(jumps)} times"
        fault = f"stamps of headers jump {times}, such as from {before:.3f} to {after:.3f} s at message {jumps[0] + 1}"
    return TopicClock(received, received, by_headers=False, note=f"{fault}; times are those of recording")


def _implausible_steps(stamps: Times, received: Times) -> Bool[np.ndarray, " steps"]:
    """Mask of the steps that go back, or forward by much more than the clock of reception at the usual rate."""
    steps, received_steps = np.diff(stamps), np.diff(received)
    forward = steps[steps > 0]
    if not len(forward):
        return steps < 0
    usual, usual_received = float(np.median(forward)), float(np.median(received_steps))
    rate = usual / usual_received if usual_received > 0 else 1.0
    explained = np.maximum(2 * max(rate, 1.0) * received_steps, 0)
    return (steps < 0) | (steps > explained + max(_MIN_JUMP_S, _JUMP_STEPS * usual))


class StreamClock:
    """Clock of a stream that only goes forward: a jump of the times of frames counts as a usual step.

    A step back is a jump, and so is one of more than 5 seconds and ten usual steps: a clock that was set, or a pause.
    It cannot be known how much time passed. `now_s` begins with the time of the first frame.
    """

    def __init__(self) -> None:
        self.now_s = 0.0
        self._before_s: float | None = None
        self._steps: deque[float] = deque(maxlen=_WINDOW)

    def advance(self, time_s: float) -> float | None:
        """Advance to the time of the next frame; returns the step, in seconds, if it is a jump."""
        before_s, self._before_s = self._before_s, time_s
        if before_s is None:
            self.now_s = time_s
            return None
        step_s = time_s - before_s
        usual_s = median(self._steps) if self._steps else None
        largest_s = _MAX_FIRST_STEP_S if usual_s is None else max(_MIN_JUMP_S, _JUMP_STEPS * usual_s)
        if step_s > 0:
            self._steps.append(step_s)
        if -_CLOCK_ERROR_S <= step_s <= largest_s:
            self.now_s += max(step_s, 0.0)
            return None
        self.now_s += usual_s or 0.0
        return step_s
