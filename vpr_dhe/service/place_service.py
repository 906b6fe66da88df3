"""What a service does with the requests it lets in: which thread does what, and in which order."""

import asyncio
import logging
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TypeVar

from vpr_dhe.errors import ImageError, VprDheError
from vpr_dhe.images import decode_image, decode_named
from vpr_dhe.localization.database import VerifiedIndex
from vpr_dhe.localization.localizer import Localizer
from vpr_dhe.records import Image, Localization
from vpr_dhe.report.pictures.encoding import jpeg
from vpr_dhe.runtime.stopwatch import Stopwatch
from vpr_dhe.runtime.threads import in_parallel
from vpr_dhe.service.additions import Additions, NewImage, add_images
from vpr_dhe.service.admission import Admission
from vpr_dhe.service.extraction_queue import ExtractionQueue
from vpr_dhe.service.limits import Limits
from vpr_dhe.service.metrics import Metrics

Result = TypeVar("Result")

# How long what another process has written to the index may stay unseen.
_REFRESH_S = 1.0
_THUMBNAIL_SIDE_PX = 320

_log = logging.getLogger(__name__)


class PlaceService:
    """Answers queries and takes in images.

    The event loop waits; a few workers decode and verify, one thread extracts in batches, and one thread writes. Each
    query sees one state of the index, whatever is written meanwhile.

    Args:
        localizer: over an index of this machine.
        verifier: the name of its verifier.
        limits: what to take on.
    """

    def __init__(self, localizer: Localizer, verifier: str, limits: Limits | None = None) -> None:
        assert isinstance(localizer.database, VerifiedIndex), "a service needs an index that it can write to"
        self.localizer, self.verifier, self.limits = localizer, verifier, limits or Limits()
        self.index = localizer.database.index
        self.admission = Admission(self.limits.queue)
        self.metrics = Metrics()
        self.metrics.watch(queue=lambda: self.admission.inside, index=lambda: len(self.index))

    def warm_up(self) -> None:
        """Load and check what the first query would have to wait for.

        Raises:
            IndexDamagedError: if stored vectors do not agree with their checksums.
        """
        snapshot = self.index.snapshot
        if len(snapshot):
            snapshot.search(snapshot.descriptors(snapshot.ids[:1]), 1)
        # Threads that begin while those for candidates are made would keep to one core.
        in_parallel(int, range(2))

    async def __aenter__(self) -> "PlaceService":
        """Start the threads."""
        limits = self.limits
        self._workers = ThreadPoolExecutor(limits.workers, "worker")
        # Who refreshes must not see an older state than who has just written, so one thread does both.
        self._writer = ThreadPoolExecutor(1, "writer")
        self._extraction = ExtractionQueue(
            self.localizer.extractor,
            batch_size=limits.batch_size,
            batch_wait_s=limits.batch_wait_s,
            observe=self.metrics.batch,
        )
        self._decoded = asyncio.Semaphore(limits.decoded)
        self._refreshing = asyncio.create_task(self._refresh())
        return self

    async def __aexit__(self, *_: object) -> None:
        """Let the threads finish what they are at."""
        self._refreshing.cancel()
        self._extraction.close()
        self._workers.shutdown()
        self._writer.shutdown()

    async def localize(self, content: bytes, top_k: int, min_probability: float | None = None) -> Localization:
        """Find the places that an image file shows, or that it is unknown, as `Localizer.localize` does.

        Raises:
            ImageError: if it is no image, damaged or too large.
            BadInputError, IndexDamagedError: with `min_probability`, if there is no calibration that can be used.
            IndexFormatError: if the index holds no images.
        """
        with self.metrics.timed("wait"):
            await self._decoded.acquire()
        try:
            return await self._localize(content, top_k, min_probability)
        finally:
            self._decoded.release()

    async def _localize(self, content: bytes, top_k: int, min_probability: float | None) -> Localization:
        clock = Stopwatch()
        image = await self._decode(content)
        features = await asyncio.wrap_future(self._extraction.submit(image))
        ask = partial(
            self.localizer.localize_features,
            image,
            features,
            top_k=top_k,
            min_probability=min_probability,
            extract_ms=clock.lap_ms(),
        )
        answer = await _done_by(self._workers, ask)
        self.metrics.localized(answer.timing)
        return answer

    async def _decode(self, content: bytes) -> Image:
        with self.metrics.timed("decode"):
            return await _done_by(self._workers, partial(decode_image, content, max_pixels=self.limits.pixels))

    async def add(self, images: Sequence[NewImage]) -> Additions:
        """Add images to the index; they are durable when this returns.

        Raises:
            ImageError: if one is no image, damaged or too large; none is added then.
            HTTPException: 409 or 422 if one cannot have its name.
            IndexBusyError: if another process is writing to the index.
        """
        for image in images:
            try:
                await self._decode(image.content)
            except ImageError as error:
                raise ImageError(f"{image.name}: {error}") from error
        with self.metrics.timed("add"):
            return await _done_by(self._writer, partial(add_images, self.index, self.localizer.extractor, images))

    async def thumbnail(self, name: str) -> bytes | None:
        """An indexed image as a small JPEG file; None if the index holds no image of this name.

        Raises:
            ImageError: if its file is gone or damaged.
        """
        snapshot = self.index.snapshot
        id = snapshot.find(name)
        if id is None:
            return None
        path = snapshot.image_path(id)
        return await _done_by(self._workers, lambda: jpeg(decode_named(path), side_px=_THUMBNAIL_SIDE_PX))

    async def _refresh(self) -> None:
        """See what other processes write to the index."""
        while True:
            await asyncio.sleep(_REFRESH_S)
            try:
                await _done_by(self._writer, self.index.refresh)
            except (VprDheError, OSError) as error:
                _log.warning("%s", error)


async def _done_by(executor: ThreadPoolExecutor, work: Callable[[], Result]) -> Result:
    return await asyncio.get_running_loop().run_in_executor(executor, work)
