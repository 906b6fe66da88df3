"""Clocks of recordings: choice between header times and times of reception, and detection of jumps.

Header times are the times of exposure, but simulators leave some at 0, and clocks may be set while recording. Times of
reception come from one clock and are in order, but have a variable delay.
"""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

import numpy as np
from jaxtyping import Bool, Float64

# A step is a jump if it exceeds both this and a number of median steps, unless another clock shows it too.
_MIN_JUMP_S = 5.0
_JUMP_STEPS = 10
# The first step has no other steps to be compared with; it is a jump if it is longer than this.
_MAX_FIRST_STEP_S = 3600.0
_WINDOW = 15
_CLOCK_ERROR_S = 1e-6

Times = Float64[np.ndarray, " frames"]


@dataclass(frozen=True)
class TopicClock:
    """Times of the messages of one topic, on one clock.

    `by_headers` says whether `times_s` are header times, `received_s` are the times of reception, and `note` is the
    reason for not using header times, or None if they are used or not set.
    """

    times_s: Times
    received_s: Times
    by_headers: bool
    note: str | None = None


def choose_clock(stamps_s: Sequence[float], received_s: Sequence[float]) -> TopicClock:
    """Choose header times or, if these are implausible, times of reception.

    Header times are implausible if they decrease, jump unlike the clock of reception, or are constant.

    Args:
        stamps_s: header times of the messages of a topic, 0 if not set.
        received_s: times of reception of the same messages.
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
    """Mask of the steps that are negative, or much longer than those of the clock of reception."""
    steps, received_steps = np.diff(stamps), np.diff(received)
    forward = steps[steps > 0]
    if not len(forward):
        return steps < 0
    usual, usual_received = float(np.median(forward)), float(np.median(received_steps))
    rate = usual / usual_received if usual_received > 0 else 1.0
    explained = np.maximum(2 * max(rate, 1.0) * received_steps, 0)
    return (steps < 0) | (steps > explained + max(_MIN_JUMP_S, _JUMP_STEPS * usual))


class StreamClock:
    """Monotonic clock of a stream: a jump of the frame times is replaced by a median step.

    A negative step is a jump, and so is one of more than 5 seconds and ten median steps: the clock was set, or the
    stream paused, for an unknown time. `now_s` starts at the time of the first frame.
    """

    def __init__(self) -> None:
        self.now_s = 0.0
        self._before_s: float | None = None
        self._steps: deque[float] = deque(maxlen=_WINDOW)

    def advance(self, time_s: float) -> float | None:
        """Advance to the time of the next frame, and return the step in seconds if it is a jump."""
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
