"""Selection of frames of a recording by number, time or distance."""

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from vpr_dhe.errors import BadInputError
from vpr_dhe.geography.wgs84 import earth_centred
from vpr_dhe.recordings.base import RecordedFrame

# Tolerance for rounding: the third frame at steps of 0.1 s may be at 0.29999.
_CLOCK_ERROR_S = 1e-6


@dataclass(frozen=True)
class Selection:
    """Selection of the first frame, and of each frame far enough from the last selected one; all frames by default.

    Args:
        every: step between frames.
        min_seconds: minimum time between frames.
        min_metres: minimum distance between frames; frames without a position are skipped.

    Raises:
        BadInputError: if more than one is given, or one is out of range.
    """

    every: int | None = None
    min_seconds: float | None = None
    min_metres: float | None = None

    def __post_init__(self) -> None:
        given = [(name, value) for name, value in self._choices() if value is not None]
        if len(given) > 1:
            raise BadInputError(f"{' and '.join(name for name, _ in given)} were given; use one of them")
        for name, value in given:
            if not (math.isfinite(value) and value > 0):
                raise BadInputError(f"{name} is {value}; expected a number above 0")

    def of(self, frames: Iterable[RecordedFrame]) -> Iterator[RecordedFrame]:
        """Select frames."""
        last: RecordedFrame | None = None
        for frame in frames:
            if self.min_metres is not None and frame.position is None:
                continue
            if last is None or self._far_enough(last, frame):
                last = frame
                yield frame

    def __str__(self) -> str:
        return next((f"{name} {value:g}" for name, value in self._choices() if value is not None), "all frames")

    def _choices(self) -> tuple[tuple[str, int | float | None], ...]:
        return ("--every", self.every), ("--min-seconds", self.min_seconds), ("--min-metres", self.min_metres)

    def _far_enough(self, last: RecordedFrame, frame: RecordedFrame) -> bool:
        if self.every is not None:
            return frame.number - last.number >= self.every
        if self.min_seconds is not None:
            # The absolute value, because clocks may be set back while recording.
            return abs(frame.time_s - last.time_s) >= self.min_seconds - _CLOCK_ERROR_S
        if self.min_metres is not None and last.position and frame.position:
            return math.dist(*earth_centred([last.position, frame.position])) >= self.min_metres
        return True
