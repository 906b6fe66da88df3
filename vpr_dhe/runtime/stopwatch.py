"""Wall-clock time of the stages of one piece of work."""

from time import perf_counter


class Stopwatch:
    """Measures laps, each from the end of the one before; the first from its construction."""

    def __init__(self) -> None:
        self._started = perf_counter()

    def lap_ms(self) -> float:
        """Milliseconds since the last lap."""
        now = perf_counter()
        lap_ms, self._started = 1e3 * (now - self._started), now
        return lap_ms
