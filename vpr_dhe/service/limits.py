"""Limits of a service."""

import os
from dataclasses import dataclass

# Verification is CPU-bound; more threads bring no speedup.
_MAX_WORKERS = 4


@dataclass(frozen=True)
class Limits:
    """Limits beyond which a request is refused.

    Args:
        body_bytes: maximum size of a body.
        pixels: maximum size of a decoded image.
        timeout_s: maximum time for a body to arrive, and then for the request to be processed.
        queue: maximum number of requests admitted and not answered yet.
        batch_size: maximum images per batch of the extractor.
        batch_wait_s: maximum time the first image of a batch waits for others, in seconds.
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
        """Maximum number of decoded images in memory: a full batch and one image per worker."""
        return self.batch_size + self.workers
