"""Pace of a stream: detects gaps between frames from times and odometry."""

from collections import deque
from statistics import median

from vpr_dhe.sequences.frames import SequenceFrame
from vpr_dhe.sequences.odometry import Step

# Window of the median; it adapts to another frame rate within eight frames.
_WINDOW = 15
# A longer gap erases the belief anyway: leaving and entering by chances of 0.1 each, 0.8^100 = 2e-10 is left of it.
_MAX_FRAMES = 100


class Pace:
    """Estimates how many frames lie between two localized ones, including those that the source left out silently.

    If frames have times, a step counts as many frames as usually fit in its duration, but no fewer than are known to
    have been dropped and, with odometry, no more than usually fit in its distance: a camera that waits does not move.
    """

    def __init__(self) -> None:
        self._before: SequenceFrame | None = None
        self._seconds, self._metres = _MedianStep(), _MedianStep()

    def step_to(self, frame: SequenceFrame) -> Step:
        """The step from the previous frame to this one; the step to the first frame carries no information."""
        before, self._before = self._before, frame
        frames = frame.dropped + 1
        if before is None or before.timestamp_s is None or frame.timestamp_s is None:
            return Step(frames, None, frame.odometry)
        seconds = frame.timestamp_s - before.timestamp_s
        if seconds < 0:
            seconds = self._seconds.usual or 0.0  # the clock was set back
        counts = [self._seconds.frames_in(seconds, frames)]
        if frame.odometry is not None:
            counts.append(self._metres.frames_in(frame.odometry.distance_m, frames))
        return Step(min(counts), seconds, frame.odometry)


class _MedianStep:
    """Running median of the amount of time or distance per frame."""

    def __init__(self) -> None:
        self._latest: deque[float] = deque(maxlen=_WINDOW)

    @property
    def usual(self) -> float | None:
        """Median of the latest; None if there are none."""
        return median(self._latest) if self._latest else None

    def frames_in(self, amount: float, minimum: int) -> int:
        """Number of frames that usually fit in this amount, at least `minimum`; the amount enters the median."""
        if amount <= 0:
            return minimum
        self._latest.append(amount / minimum)
        return max(minimum, min(round(amount / median(self._latest)), _MAX_FRAMES))
