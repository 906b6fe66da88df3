"""Stopwatch for consecutive stages."""

from time import perf_counter


class Stopwatch:
    """Stopwatch of wall-clock laps, each from the end of the previous one; the first from construction."""

    def __init__(self) -> None:
        self._started = perf_counter()

    def lap_ms(self) -> float:
        """End a lap, and return its milliseconds."""
        now = perf_counter()
        lap_ms, self._started = 1e3 * (now - self._started), now
        return lap_ms
