"""How fast the frames of a stream follow each other, so that a gap among them is seen to be one."""

from collections import deque
from statistics import median

from vpr_dhe.sequences.frames import SequenceFrame
from vpr_dhe.sequences.odometry import Step

# Enough for a median; a camera that is set to another rate is followed after eight frames.
_LATEST = 15
# After as many, hardly anything is left of what was believed: of leaving and entering by chances of 0.1 each,
# 0.8^100 = 2e-10.
_LONGEST = 100


class Pace:
    """Counts frames by the clock: what a source leaves out without a word moves the camera all the same.

    Where frames have times, a step counts as many frames as usually come in its seconds, but no fewer than are known to
    lie between, nor more than usually come on its way where the odometry tells that: who waits goes nowhere.
    """

    def __init__(self) -> None:
        self._before: SequenceFrame | None = None
        self._seconds, self._metres = _Usual(), _Usual()

    def step_to(self, frame: SequenceFrame) -> Step:
        """What lies between the frame asked about last and this one; nothing is known of what lies before the first."""
        before, self._before = self._before, frame
        frames = frame.dropped + 1
        if before is None or before.timestamp_s is None or frame.timestamp_s is None:
            return Step(frames, None, frame.odometry)
        seconds = frame.timestamp_s - before.timestamp_s
        counts = [self._seconds.frames_in(seconds, frames)]
        if frame.odometry is not None:
            counts.append(self._metres.frames_in(frame.odometry.distance_m, frames))
        return Step(min(counts), seconds, frame.odometry)


class _Usual:
    """What usually lies from frame to frame: the median of the latest steps."""

    def __init__(self) -> None:
        self._latest: deque[float] = deque(maxlen=_LATEST)

    def frames_in(self, amount: float, least: int) -> int:
        """How many frames usually come in this amount, of which at least so many did; it counts from now on."""
        # A clock that was set back tells nothing.
        if amount <= 0:
            return least
        self._latest.append(amount / least)
        return max(least, min(round(amount / median(self._latest)), _LONGEST))
