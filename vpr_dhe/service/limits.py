"""What one service takes on."""

import os
from dataclasses import dataclass

# Verification is arithmetic in this process; more threads than that only take turns.
_MAX_WORKERS = 4


@dataclass(frozen=True)
class Limits:
    """Beyond these a request is refused, with a reason.

    Args:
        body_bytes: the largest body.
        pixels: the largest image, as decoded.
        timeout_s: how long a body may take to arrive, and then an answer to be found.
        queue: requests that are let in and not answered yet.
        batch_size: images that the extractor describes together.
        batch_wait_s: how long the first of them waits for others.
        workers: threads that decode and verify.
    """

    body_bytes: int = 20_000_000
    pixels: int = 50_000_000
    timeout_s: float = 30.0
    queue: int = 64
    batch_size: int = 8
    batch_wait_s: float = 0.005
    workers: int = min(_MAX_WORKERS, os.cpu_count() or 1)

    @property
    def decoded(self) -> int:
        """Images held as pixels at a time: enough for a full batch while each worker is at another."""
        return self.batch_size + self.workers
