"""Images of many requests, described in batches by one thread."""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from threading import Thread
from time import perf_counter

from vpr_dhe.features.base import Extractor
from vpr_dhe.records import Features, Image


@dataclass(frozen=True)
class _Waiting:
    image: Image
    features: Future[Features]


class ExtractionQueue:
    """Describes images in the order in which they come, those that come together in one batch.

    Whoever submits sees to it that not too many wait.

    Args:
        extractor: what an image's features are does not depend on its batch.
        batch_size: the largest batch.
        batch_wait_s: how long the first image of a batch waits for others.
        observe: told the size of each batch and the seconds that it took, in the thread that extracts.
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
        self._waiting: SimpleQueue[_Waiting | None] = SimpleQueue()
        self._thread = Thread(target=self._work, name="extraction", daemon=True)
        self._thread.start()

    def submit(self, image: Image) -> Future[Features]:
        """Ask for an image's features; cancelled before its batch begins, it is left out."""
        waiting = _Waiting(image, Future())
        self._waiting.put(waiting)
        return waiting.features

    def close(self) -> None:
        """Describe what was submitted so far, then end the thread."""
        self._waiting.put(None)
        self._thread.join()

    def _work(self) -> None:
        while (first := self._waiting.get()) is not None:
            batch = [first, *self._others()]
            self._describe([one for one in batch if one.features.set_running_or_notify_cancel()])

    def _others(self) -> Iterator[_Waiting]:
        """What comes in time to share a batch with the first."""
        deadline = perf_counter() + self._batch_wait_s
        for _ in range(self._batch_size - 1):
            try:
                following = self._waiting.get(timeout=max(0.0, deadline - perf_counter()))
            except Empty:
                return
            if following is None:
                self._waiting.put(None)
                return
            yield following

    def _describe(self, batch: Sequence[_Waiting]) -> None:
        if not batch:
            return
        started = perf_counter()
        try:
            described = self._extractor.extract([one.image for one in batch])
        except Exception as error:  # the thread must live on, and whoever asked must be told
            if len(batch) == 1:
                batch[0].features.set_exception(error)
                return
            # One image may not take the others with it.
            for one in batch:
                self._describe([one])
            return
        self._observe(len(batch), perf_counter() - started)
        for one, features in zip(batch, described, strict=True):
            one.features.set_result(features)
