"""Single-slot queue that keeps the latest image, for a worker slower than the camera."""

from collections.abc import Callable
from dataclasses import dataclass
from threading import Condition
from time import monotonic

from vpr_dhe.integrations.ros2.cdr import CameraImage
from vpr_dhe.integrations.ros2.counters import Counters, Event


@dataclass(frozen=True)
class Arrival:
    """Received image: a function that reads it, its monotonic time of arrival, and the images dropped before it."""

    read: Callable[[], CameraImage]
    arrived_s: float
    dropped: int


class NewestImage:
    """Single-slot queue from the receiving thread to the worker; a waiting image is replaced and counted as dropped."""

    def __init__(self, counters: Counters) -> None:
        self._counters, self._changed = counters, Condition()
        self._waiting: Arrival | None = None
        self._closed = False

    def offer(self, read: Callable[[], CameraImage]) -> None:
        """Put an image in the slot."""
        self._counters.add(Event.RECEIVED)
        with self._changed:
            dropped = 0
            if self._waiting is not None:
                self._counters.add(Event.DROPPED)
                dropped = self._waiting.dropped + 1
            self._waiting = Arrival(read, monotonic(), dropped)
            self._changed.notify()

    def take(self, timeout_s: float) -> Arrival | None:
        """Wait for an image; None after the timeout, or once closed."""
        with self._changed:
            self._changed.wait_for(lambda: self._waiting is not None or self._closed, timeout_s)
            taken, self._waiting = self._waiting, None
            return None if self._closed else taken

    @property
    def closed(self) -> bool:
        """Whether the queue is closed, so that the worker should end."""
        return self._closed

    def close(self) -> None:
        """Close the queue, which ends the worker."""
        with self._changed:
            self._closed = True
            self._changed.notify()
