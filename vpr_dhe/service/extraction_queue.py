"""Extraction of the images of many requests, in batches, by one thread."""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from threading import Thread
from time import perf_counter
from traceback import format_tb

from vpr_dhe.features.base import Extractor
from vpr_dhe.records import Features, Image


@dataclass(frozen=True)
class _Job:
    image: Image
    features: Future[Features]


class ExtractionQueue:
    """Extracts features in the order of submission; images submitted together share a batch.

    The caller limits the number of pending images.

    Args:
        extractor: an extractor whose features do not depend on the batch.
        batch_size: maximum images per batch.
        batch_wait_s: maximum time the first image of a batch waits for others, in seconds.
        observe: called with the size and duration in seconds of each batch, in the extracting thread.
    """

    def __init__(
        self,
        extractor: Extractor,
        *,
        batch_size: int,
        batch_wait_s: float,
        observe: Callable[[int, float], object] = lambda *_: None,
    ) -> None:
        self._extractor, self._observe = extractor, observe
        self._batch_size, self._batch_wait_s = batch_size, batch_wait_s
        self._jobs: SimpleQueue[_Job | None] = SimpleQueue()
        self._thread = Thread(target=self._work, name="extraction", daemon=True)
        self._thread.start()

    def submit(self, image: Image) -> Future[Features]:
        """Submit an image; a future cancelled before its batch begins is skipped."""
        job = _Job(image, Future())
        self._jobs.put(job)
        return job.features

    def close(self) -> None:
        """Extract what was submitted so far, then end the thread."""
        self._jobs.put(None)
        self._thread.join()

    def _work(self) -> None:
        while (first := self._jobs.get()) is not None:
            batch = [first, *self._others()]
            self._extract([job for job in batch if job.features.set_running_or_notify_cancel()])
            del first, batch  # their images, while there is nothing to do

    def _others(self) -> Iterator[_Job]:
        """Jobs that arrive in time to share a batch with the first."""
        deadline = perf_counter() + self._batch_wait_s
        for _ in range(self._batch_size - 1):
            try:
                following = self._jobs.get(timeout=max(0.0, deadline - perf_counter()))
            except Empty:
                return
            if following is None:
                self._jobs.put(None)
                return
            yield following

    def _extract(self, batch: Sequence[_Job]) -> None:
        if not batch:
            return
        started = perf_counter()
        extracted = self._try_extract(batch)
        if extracted is None:
            # One bad image must not make the others fail.
            for job in batch if len(batch) > 1 else ():
                self._extract([job])
            return
        self._observe(len(batch), perf_counter() - started)
        for job, features in zip(batch, extracted, strict=True):
            job.features.set_result(features)

    def _try_extract(self, batch: Sequence[_Job]) -> list[Features] | None:
        """Features of a batch; None if the extractor fails, whose error the submitter of a single image gets.

        When this returns, the error of a batch is gone, and with it the memory of what failed.
        """
        try:
            return self._extractor.extract([job.image for job in batch])
        except Exception as error:  # the thread must survive
            if len(batch) == 1:
                # The traceback as text, because its frames refer to the job, and the job would refer to the error.
                error.add_note("".join(format_tb(error.__traceback__)))
                batch[0].features.set_exception(error.with_traceback(None))
            return None
