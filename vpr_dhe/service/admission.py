"""Who is let in: a bounded number of requests at a time, and none once the service is stopping."""

from collections.abc import Iterator
from contextlib import contextmanager

from starlette.exceptions import HTTPException


class Admission:
    """Counts the requests that are let in and not answered yet; for the thread of one event loop."""

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self.inside = 0
        self.closed = False

    @contextmanager
    def entered(self) -> Iterator[None]:
        """Let one request in until it is answered.

        Raises:
            HTTPException: 503 once closed; 429 while there are as many inside as may be.
        """
        if self.closed:
            raise HTTPException(503, "the service is stopping and takes no more requests")
        if self.inside >= self._capacity:
            busy = f"{self.inside} requests are waiting for their answers already; ask again in a moment"
            raise HTTPException(429, busy, {"Retry-After": "1"})
        self.inside += 1
        try:
            yield
        finally:
            self.inside -= 1

    def close(self) -> None:
        """Let nobody in any more; those inside are answered."""
        self.closed = True

    @property
    def finished(self) -> bool:
        """Whether it is closed and everybody has left."""
        return self.closed and not self.inside
