"""Prometheus metrics of a service."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from time import perf_counter

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest

from vpr_dhe.records import Timing

_SECONDS = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0)
_BATCH_SIZES = (1, 2, 4, 8, 16, 32, 64)


class Metrics:
    """Counters and histograms of one service, in a separate registry."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        registry = self._registry
        self._requests = Counter("vpr_dhe_requests", "Requests.", ["route", "status"], registry=registry)
        self._stages = Histogram(
            "vpr_dhe_stage_seconds", "Time by stage.", ["stage"], buckets=_SECONDS, registry=registry
        )
        self._batches = Histogram(
            "vpr_dhe_batch_images", "Images per batch of the extractor.", buckets=_BATCH_SIZES, registry=registry
        )
        self._queue = Gauge("vpr_dhe_queue_requests", "Requests admitted and not answered yet.", registry=registry)
        self._index = Gauge("vpr_dhe_index_images", "Images that can be found.", registry=registry)
        ProcessCollector(registry=registry)

    def watch(self, *, queue: Callable[[], int], index: Callable[[], int]) -> None:
        """Read the length of the queue and the size of the index from these functions at each scrape."""
        self._queue.set_function(queue)
        self._index.set_function(index)

    def count(self, route: str, status: int) -> None:
        """Count one answered request."""
        self._requests.labels(route, str(status)).inc()

    @contextmanager
    def timed(self, stage: str) -> Iterator[None]:
        """Time a stage, whether it succeeds or fails."""
        started = perf_counter()
        try:
            yield
        finally:
            self._stages.labels(stage).observe(perf_counter() - started)

    def batch(self, images: int, seconds: float) -> None:
        """Record an extracted batch."""
        self._batches.observe(images)
        self._stages.labels("extract").observe(seconds)

    def localized(self, timing: Timing) -> None:
        """Record the timing of a localized query."""
        self._stages.labels("search").observe(timing.search_ms / 1e3)
        self._stages.labels("rerank").observe(timing.rerank_ms / 1e3)

    def text(self) -> bytes:
        """All metrics in the text format of Prometheus."""
        return generate_latest(self._registry)
