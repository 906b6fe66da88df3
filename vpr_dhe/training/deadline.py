"""Deadline of a long task."""

from collections.abc import Callable
from math import inf
from time import monotonic


class Deadline:
    """End of a time limit that starts on construction; None means no limit. `clock` returns seconds."""

    def __init__(self, minutes: float | None = None, *, clock: Callable[[], float] = monotonic) -> None:
        self.minutes, self._clock = minutes, clock
        self._ends_s = inf if minutes is None else clock() + 60 * minutes

    @property
    def is_over(self) -> bool:
        """Whether the time is up."""
        return self._clock() >= self._ends_s
