"""Counts of recent events of a node, for its diagnostics."""

import statistics
from collections import Counter
from enum import StrEnum
from threading import Lock
from time import monotonic, time_ns

from vpr_dhe.integrations.ros2.cdr import Stamp
from vpr_dhe.integrations.ros2.messages import Diagnostics, Level

# A camera at 1 Hz must not count as silent.
_SILENT_S = 5.0


class Event(StrEnum):
    """Events that are counted."""

    RECEIVED = "received"
    DROPPED = "dropped"
    ANSWERED = "answered"
    UNREADABLE = "unreadable"
    UNKNOWN = "unknown"
    POSITIONS = "positions"
    FAILED = "failed"


class Counters:
    """Counts of events since the last report, and in total; thread-safe."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._recent, self._total = Counter[Event](), Counter[Event]()
        self._delays_ms: list[float] = []
        self._since_s = self._heard_s = monotonic()
        self._fault: str | None = None
        self._failure = ""

    def add(self, event: Event) -> None:
        """Count an event."""
        with self._lock:
            self._recent[event] += 1
            self._total[event] += 1
            if event == Event.RECEIVED:
                self._heard_s = monotonic()

    def answered(self, delay_ms: float) -> None:
        """Count an answer and its delay since the arrival of the image."""
        self.add(Event.ANSWERED)
        with self._lock:
            self._delays_ms.append(delay_ms)

    def failed(self, reason: str) -> None:
        """Count an image that could not be localized, and why."""
        self.add(Event.FAILED)
        with self._lock:
            self._failure = reason

    def fault(self, reason: str | None) -> None:
        """Set or clear (None) the fault of the index."""
        with self._lock:
            self._fault = reason

    def report(self, topic: str, facts: dict[str, str]) -> Diagnostics:
        """Make the diagnostics of the time since the last report."""
        with self._lock:
            now_s = monotonic()
            elapsed_s, silent_s = max(now_s - self._since_s, 1e-3), now_s - self._heard_s
            values = {
                "images per second": f"{self._recent[Event.RECEIVED] / elapsed_s:.2f}",
                "answers per second": f"{self._recent[Event.ANSWERED] / elapsed_s:.2f}",
                "delay in ms, median": f"{statistics.median(self._delays_ms):.0f}" if self._delays_ms else "",
                **{f"images {event}": str(self._total[event]) for event in _TOTALS},
                "positions": str(self._total[Event.POSITIONS]),
                **facts,
            }
            level, message = self._level(topic, silent_s)
            self._recent.clear()
            self._delays_ms.clear()
            self._since_s = now_s
        sec, nanosec = divmod(time_ns(), 10**9)
        return Diagnostics(Stamp(sec, nanosec), level, message, values)

    def _level(self, topic: str, silent_s: float) -> tuple[Level, str]:
        if self._fault is not None:
            return Level.ERROR, self._fault
        if silent_s > _SILENT_S:
            return Level.STALE, f"no images on {topic} for {silent_s:.0f} s"
        failed = self._recent[Event.FAILED]
        if failed and failed >= self._recent[Event.ANSWERED]:
            return Level.ERROR, self._failure
        unread = self._recent[Event.UNREADABLE]
        if unread and unread >= self._recent[Event.ANSWERED]:
            return Level.WARN, "images cannot be read"
        return Level.OK, "localizing"


_TOTALS = (Event.RECEIVED, Event.DROPPED, Event.ANSWERED, Event.UNREADABLE, Event.UNKNOWN, Event.FAILED)
