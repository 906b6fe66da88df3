"""Threads of a service and the division of work between them."""

import asyncio
import logging
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, TypeVar

from vpr_dhe.errors import ImageError, VprDheError
from vpr_dhe.images.decoding import decode_image
from vpr_dhe.localization.localizer import Localizer
from vpr_dhe.localization.search_area import parse_near
from vpr_dhe.records import Image, Localization, Near
from vpr_dhe.report.pictures.encoding import jpeg
from vpr_dhe.runtime.stopwatch import Stopwatch
from vpr_dhe.runtime.threads import in_parallel
from vpr_dhe.service.add_images import Additions, NewImage, add_images
from vpr_dhe.service.admission import Admission
from vpr_dhe.service.extraction_queue import ExtractionQueue
from vpr_dhe.service.limits import Limits
from vpr_dhe.service.map_data import positions_document
from vpr_dhe.service.metrics import Metrics

Result = TypeVar("Result")

# Interval at which the index is checked for writes of other processes.
_REFRESH_S = 1.0

_log = logging.getLogger(__name__)


class PlaceService:
    """Localizes queries and adds images, for many requests at once.

    The event loop waits; a few workers decode and verify, one thread extracts in batches, and one thread writes. Each
    query sees one fixed state of the index.

    Args:
        localizer: localizer over an index on this machine.
        verifier: name of its verifier.
        limits: limits of the service.

    Raises:
        BadInputError: if the localizer answers from no index on this machine.
    """

    def __init__(self, localizer: Localizer, verifier: str, limits: Limits | None = None) -> None:
        self.localizer, self.verifier, self.limits = localizer, verifier, limits or Limits()
        self.index = localizer.index
        self.admission = Admission(self.limits.queue)
        self.metrics = Metrics()
        self.metrics.watch(queue=lambda: self.admission.active, index=lambda: len(self.index))

    def warm_up(self) -> None:
        """Load and check everything that the first query needs.

        Raises:
            IndexDamagedError: if stored vectors fail their checksums.
        """
        snapshot = self.index.snapshot
        if len(snapshot):
            first = snapshot.ids[:1]
            snapshot.search(snapshot.descriptors(first), 1, codes=snapshot.codes(first))
        # Create the thread pool for candidates now: threads started during its creation would stay limited to one core.
        in_parallel(int, range(2))

    async def __aenter__(self) -> "PlaceService":
        """Start the threads."""
        limits = self.limits
        self._workers = ThreadPoolExecutor(limits.workers, "worker")
        # One thread both writes and refreshes, so that a refresh never returns to an older state.
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
        """Let the threads finish their work."""
        self._refreshing.cancel()
        self._extraction.close()
        self._workers.shutdown()
        self._writer.shutdown()

    async def localize(
        self, content: bytes, top_k: int, min_probability: float | None = None, near: Near | None = None
    ) -> Localization:
        """Localize an image file, as `Localizer.localize` does.

        Raises:
            ImageError: if it is not an image, damaged or too large.
            BadInputError, IndexDamagedError: with `min_probability`, if there is no usable calibration.
            IndexFormatError: if the index holds no images.
        """
        with self.metrics.timed("wait"):
            await self._decoded.acquire()
        try:
            return await self._localize(content, top_k, min_probability, near)
        finally:
            self._decoded.release()

    async def _localize(
        self, content: bytes, top_k: int, min_probability: float | None, near: Near | None
    ) -> Localization:
        clock = Stopwatch()
        image = await self._decode(content)
        features = await asyncio.wrap_future(self._extraction.submit(image))
        search = partial(
            self.localizer.localize_features,
            image,
            features,
            top_k=top_k,
            min_probability=min_probability,
            near=near,
            extract_ms=clock.lap_ms(),
        )
        localization = await _run(self._workers, search)
        self.metrics.localized(localization.timing)
        return localization

    async def circle(self, position: str, within_m: float) -> Near:
        """Read a circle for `localize`, as `search_area.parse_near` does."""
        return await _run(self._workers, partial(parse_near, position, within_m, self.index.snapshot))

    async def _decode(self, content: bytes) -> Image:
        with self.metrics.timed("decode"):
            levels = self.localizer.grey_levels
            decode = partial(decode_image, content, max_pixels=self.limits.pixels, grey_levels=levels)
            return await _run(self._workers, decode)

    async def add(self, images: Sequence[NewImage]) -> Additions:
        """Add images to the index; they are durable when this returns.

        Raises:
            ImageError: if one is not an image, damaged or too large; then none is added.
            HTTPException: 409 or 422 if a name is taken or invalid.
            IndexBusyError: if another process is writing to the index.
        """
        for image in images:
            try:
                await self._decode(image.content)
            except ImageError as error:
                raise ImageError(f"{image.name}: {error}") from error
        with self.metrics.timed("add"):
            return await _run(self._writer, partial(add_images, self.index, self.localizer.extractor, images))

    async def thumbnail(self, name: str, side_px: int) -> bytes | None:
        """Return a database image as a small JPEG file; None if the index contains no image of this name.

        `side_px` is the maximum length of its longer side.

        Raises:
            ImageError: if its file is missing or damaged.
        """
        snapshot = self.index.snapshot
        id = snapshot.find(name)
        if id is None:
            return None
        return await _run(self._workers, lambda: jpeg(snapshot.decode(id), side_px=side_px))

    async def positions(self) -> dict[str, Any]:
        """Positions of indexed images, for a map."""
        return await _run(self._workers, partial(positions_document, self.index.snapshot))

    async def _refresh(self) -> None:
        """Pick up what other processes write to the index; a fault is logged once until it changes or ends."""
        logged = ""
        while True:
            await asyncio.sleep(_REFRESH_S)
            fault = ""
            try:
                await _run(self._writer, self.index.refresh)
            except (VprDheError, OSError) as error:
                fault = str(error)
            if fault and fault != logged:
                _log.warning("%s", fault)
            logged = fault


async def _run(executor: ThreadPoolExecutor, work: Callable[[], Result]) -> Result:
    return await asyncio.get_running_loop().run_in_executor(executor, work)
