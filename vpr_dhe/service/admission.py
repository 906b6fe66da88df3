"""Admission control: a limit of concurrent requests, and no new ones while stopping."""

from collections.abc import Iterator
from contextlib import contextmanager

from starlette.exceptions import HTTPException


class Admission:
    """Counter of active requests, for the thread of one event loop.

    Args:
        capacity: maximum number of active requests.
    """

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self.active = 0
        self.closed = False

    @contextmanager
    def admitted(self) -> Iterator[None]:
        """Admit one request until it is answered.

        Raises:
            HTTPException: 503 once closed; 429 at capacity.
        """
        if self.closed:
            raise HTTPException(503, "the service is stopping and takes no more requests")
        if self.active >= self._capacity:
            are_active = "1 request is" if self.active == 1 else f"{self.active} requests are"
            busy = f"{are_active} being processed already; try again in a moment"
            raise HTTPException(429, busy, {"Retry-After": "1"})
        self.active += 1
        try:
            yield
        finally:
            self.active -= 1

    def close(self) -> None:
        """Admit no more requests; active ones are still answered."""
        self.closed = True

    @property
    def finished(self) -> bool:
        """Whether it is closed and no requests are active."""
        return self.closed and not self.active
