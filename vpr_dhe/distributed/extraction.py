"""Extraction of one index by many workers: workers seal whole segments, and one process publishes them.

All machines must see the folders of the images and of the index under the same paths. The calling process holds the
write lock. It plans chunks, with ids assigned in advance, and sends them to Ray Data actors, which extract a chunk and
seal it as a segment in the shared folder. Sealed segments are published in the order of completion. If a worker is
lost, Ray sends its unsealed chunk to another worker. The index is identical to one made on a single machine: same ids,
vectors, local maps and skipped images.

    add_with_ray(index, records, extractor, Workers.of("lite-vlad", "cpu"), address="auto")
"""

import logging
import pickle
import shutil
import socket
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from functools import cached_property, partial
from math import ceil
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import torch

from vpr_dhe.distributed.cluster import connected, import_ray
from vpr_dhe.distributed.threads import Threads
from vpr_dhe.errors import BadInputError, VprDheError, WorkerLostError
from vpr_dhe.features.base import Extractor, ExtractorSpec
from vpr_dhe.features.extractor import load_extractor
from vpr_dhe.images.opened import FULL_RANGE
from vpr_dhe.index.add_report import AddReport
from vpr_dhe.index.changes import Changes, changes_between
from vpr_dhe.index.codecs import LocalMapCodec
from vpr_dhe.index.files import unique_name
from vpr_dhe.index.image_folders import ImageFolders
from vpr_dhe.index.ingest import Chunk, SealedChunk, Source, extract, load, seal_chunk
from vpr_dhe.index.place_index import PlaceIndex, require_same_features
from vpr_dhe.index.writer import IndexWriter
from vpr_dhe.records import GreyLevels, ImageRecord, Progress
from vpr_dhe.runtime.choices import AUTO, FP32, MAX_PIXELS, ExtractorPrecision, Runtime
from vpr_dhe.runtime.durable_files import TEMPORARY_SUFFIX

# Maximum attempts for a chunk that kills workers. Ray's `max_task_retries` cannot be used, because it also counts
# attempts to reach a dead worker, many per death.
MAX_ATTEMPTS = 4
# Few images are divided among all workers, in several chunks each, so that workers finish at about the same time.
# Sealing a chunk takes as long as extracting one or two images.
_CHUNKS_PER_WORKER = 4
_MIN_CHUNK_IMAGES = 32

Outcome: TypeAlias = SealedChunk | VprDheError | OSError
"""Result of a worker for one chunk. Expected errors are returned, because Ray would wrap them and log a traceback."""


@dataclass(frozen=True)
class Workers:
    """Workers that extract images.

    Args:
        load: loads the extractor, once in each worker.
        count: number of workers; None uses as many as fit the cluster, with `gpus_each` GPUs and as many CPUs each as
            this process has threads.
        gpus_each: GPUs per worker.
    """

    load: Callable[[], Extractor]
    count: int | None = None
    gpus_each: float = 0.0

    @classmethod
    def of(
        cls,
        model: str,
        device: str,
        *,
        precision: ExtractorPrecision = FP32,
        compiled: bool = False,
        runtime: Runtime = AUTO,
    ) -> "Workers":
        """As many workers as fit the cluster, with a model given by name, or by a file visible to all machines."""
        name = str(Path(model).resolve()) if Path(model).is_file() else model
        # A worker sees only the GPU that Ray gives it.
        kind = torch.device(device).type
        load = partial(load_extractor, name, kind, precision=precision, compiled=compiled, runtime=runtime)
        return cls(load, gpus_each=1.0 if kind == "cuda" else 0.0)


def add_with_ray(
    index: PlaceIndex,
    records: Sequence[ImageRecord],
    extractor: Extractor,
    workers: Workers,
    *,
    address: str = AUTO,
    batch_size: int = 8,
    strict: bool = False,
    max_pixels: int = MAX_PIXELS,
    progress: Progress = lambda _: None,
) -> AddReport:
    """Update an index with images as `PlaceIndex.add` does, using the workers of a Ray cluster.

    Args:
        index: index whose folder and images have the same paths on all workers.
        records: images, with paths relative to the index's images folder.
        extractor: extractor of the index, for the images that a codec is fitted to.
        workers: workers for all other images.
        address: address of the cluster; see `cluster.connected`.
        batch_size: images per call of the extractor.
        strict: raise an error at the first unreadable image instead of skipping it.
        max_pixels: maximum number of pixels of an image; larger images count as unreadable.
        progress: called with the number of images just processed.

    Raises:
        BadInputError: if there is no cluster at the address, it lacks the processors, or a worker does not see the
            folders.
        IndexFormatError: if the extractor, here or in a worker, is not that of the index.
        IndexBusyError: if another process is writing.
        ImageError: with `strict`, at an image that cannot be read.
        WorkerLostError: if a chunk kills every worker that extracts it; all other chunks are then in the index.
        MissingExtraError: if Ray is not installed.
    """
    require_same_features(index.spec, extractor.spec)
    with connected(address), index.writing() as writer:
        pool = _pool(workers)
        changes = changes_between(writer.snapshot, records)
        progress(changes.unchanged + len(changes.updated))
        writer.update(changes)
        intake = _Intake(writer, changes, progress)
        levels = writer.settle_grey_levels(changes.to_extract)
        source = Source(
            index.manifest.folders, extractor, batch_size, strict, grey_levels=levels, max_pixels=max_pixels
        )
        remaining = writer.ensure_codec(changes.to_extract, source, intake.publish, progress)
        chunks = writer.chunks(remaining, _chunk_images(len(remaining), pool.size))
        if chunks:
            with _ledger(writer.segments_folder.resolve()) as ledger:
                codec = writer.snapshot.require_codec()
                job = _Job(
                    ledger,
                    source.folders,
                    index.spec,
                    codec,
                    workers.load,
                    Threads.here(),
                    batch_size,
                    strict,
                    levels,
                    max_pixels,
                )
                # Closed explicitly: on an error, workers would continue until its traceback is garbage-collected.
                with closing(_outcomes(chunks, job, pool)) as outcomes:
                    intake.take(chunks, outcomes)
    return intake.report()


class _Intake:
    """Publisher of sealed chunks, in any order."""

    def __init__(self, writer: IndexWriter, changes: Changes, progress: Progress) -> None:
        self._writer, self._changes, self._progress = writer, changes, progress
        self._sealed: dict[int, SealedChunk] = {}

    def publish(self, sealed: SealedChunk) -> None:
        """Add a chunk to the index."""
        self._writer.accept(sealed, self._changes.replaced)
        self._sealed[sealed.next_id] = sealed

    def take(self, chunks: Sequence[Chunk], outcomes: Iterator[tuple[int, Outcome]]) -> None:
        """Publish each chunk once, and merge small segments before the first outstanding chunk.

        Raises:
            VprDheError, OSError: the error of a worker. Lost chunks are reported after all others are published.
        """
        outstanding = {chunk.first_id: chunk for chunk in chunks}
        lost: list[WorkerLostError] = []
        for first_id, outcome in outcomes:
            if isinstance(outcome, WorkerLostError):
                lost.append(outcome)
            elif isinstance(outcome, Exception):
                raise outcome
            elif chunk := outstanding.pop(first_id, None):
                self.publish(outcome)
                self._progress(len(chunk.records))
                # The id range of a merged segment must not enclose that of an outstanding chunk.
                self._writer.merge_tail(below=next(iter(outstanding), None))
        if lost:
            raise lost[0]
        assert not outstanding, "Ray Data dropped chunks without an error"

    def report(self) -> AddReport:
        """Summary of the added, unchanged and skipped images."""
        return AddReport.of(self._changes, [sealed for _, sealed in sorted(self._sealed.items())])


@dataclass(frozen=True)
class _Job:
    """Settings of the workers.

    `ledger` is a folder next to the segments that exists while the job runs. Workers use it to check that they see the
    index, and to count the attempts at each chunk.
    """

    ledger: Path
    folders: ImageFolders
    spec: ExtractorSpec
    codec: LocalMapCodec
    load: Callable[[], Extractor]
    threads: Threads
    batch_size: int
    strict: bool
    grey_levels: GreyLevels = FULL_RANGE
    max_pixels: int = MAX_PIXELS


@contextmanager
def _ledger(segments_folder: Path) -> Iterator[Path]:
    """Temporary folder outside the manifest; after a crash, the next writer removes it."""
    folder = segments_folder / f"{unique_name('extraction')}{TEMPORARY_SUFFIX}"
    folder.mkdir()
    try:
        yield folder
    finally:
        # A worker that is still ending may add a file; the next writer removes what is left.
        shutil.rmtree(folder, ignore_errors=True)


class ChunkSealer:
    """Worker that extracts chunks into sealed segments.

    The extractor is loaded with the first chunk, because Ray Data restarts an actor after any error in its constructor.
    """

    def __init__(self, job: _Job) -> None:
        self._job = job

    def __call__(self, batch: dict[str, np.ndarray]) -> dict[str, list[bytes]]:
        """Seal the single chunk of a batch; input and output are pickled, opaque to Ray Data."""
        chunk: Chunk = pickle.loads(batch["chunk"][0])
        return {"outcome": [pickle.dumps((chunk.first_id, self.outcome(chunk)))]}

    def outcome(self, chunk: Chunk) -> Outcome:
        """Extract and seal a chunk; unexpected errors are raised, so that Ray shows their traceback."""
        sealed: list[SealedChunk] = []
        try:
            source = self._source
            self._begin(chunk)
            extracted = extract(source, chunk.records, load(source, chunk.records))
            seal_chunk(self._job.ledger.parent, chunk, extracted, self._job.codec, publish=sealed.append)
        except (VprDheError, OSError) as error:
            return error
        return sealed[0]

    @cached_property
    def _source(self) -> Source:
        for folder in (self._job.ledger, *self._job.folders.all):
            if not Path(folder).is_dir():
                raise BadInputError(
                    f"worker {socket.gethostname()} does not see the folder {folder}; all machines must see images and "
                    "index under the same paths"
                )
        self._job.threads.use()  # before the model's runtime creates its threads
        extractor = self._job.load()
        require_same_features(self._job.spec, extractor.spec)
        job = self._job
        levels, pixels = job.grey_levels, job.max_pixels
        return Source(job.folders, extractor, job.batch_size, job.strict, grey_levels=levels, max_pixels=pixels)

    def _begin(self, chunk: Chunk) -> None:
        """Record an attempt at a chunk in the ledger, which outlives this worker."""
        for attempt in range(MAX_ATTEMPTS):
            try:
                (self._job.ledger / f"{chunk.first_id}-{attempt}").touch(exist_ok=False)
            except FileExistsError:
                continue
            return
        raise WorkerLostError(
            f"{MAX_ATTEMPTS} workers died in succession while extracting {chunk.records[0].path} to "
            f"{chunk.records[-1].path}; look for an image that takes too much memory, or give workers more memory"
        )


@dataclass(frozen=True)
class _Pool:
    """Number of workers to request from the cluster, and the resources of each."""

    size: int
    cpus_each: float
    gpus_each: float


def _pool(workers: Workers) -> _Pool:
    """Fit workers to the machines of the cluster, because Ray would wait forever for unavailable resources."""
    machines = [node["Resources"] for node in import_ray().nodes() if node["Alive"]]
    machines = [machine for machine in machines if machine.get("CPU") and machine.get("GPU", 0) >= workers.gpus_each]
    if not machines:
        wanted = f"{workers.gpus_each:g} GPUs" if workers.gpus_each else "a CPU"
        advice = "extract on CPUs (--device cpu)" if workers.gpus_each else "add machines with `ray start`"
        raise BadInputError(f"no machine of the Ray cluster has {wanted} for a worker; {advice}")
    cpus = min(float(Threads.here().largest), *(machine["CPU"] for machine in machines))
    room = [machine["CPU"] // cpus for machine in machines]
    if workers.gpus_each:
        room = [
            min(by_cpu, machine["GPU"] // workers.gpus_each) for by_cpu, machine in zip(room, machines, strict=True)
        ]
    return _Pool(workers.count or int(sum(room)), cpus, workers.gpus_each)


def _chunk_images(images: int, workers: int) -> int:
    """Number of images per chunk that keeps all workers busy without too many small chunks."""
    return max(_MIN_CHUNK_IMAGES, ceil(images / (_CHUNKS_PER_WORKER * workers)))


def _outcomes(chunks: Sequence[Chunk], job: _Job, pool: _Pool) -> Generator[tuple[int, Outcome]]:
    """Send chunks to workers; yields first id and outcome of each when it is done."""
    import ray.data

    with _quiet_ray_data():
        # One block per chunk: Ray Data sends blocks, and sends them again if a worker is lost.
        rows = ray.data.from_items(
            [{"chunk": pickle.dumps(chunk)} for chunk in chunks], override_num_blocks=len(chunks)
        )
        size = min(pool.size, len(chunks))
        outcomes = rows.map_batches(
            ChunkSealer,
            fn_constructor_args=(job,),
            batch_size=1,
            batch_format="numpy",
            # A fixed size: an autoscaling pool grows only after chunks queue up at a worker, where they would be stuck
            # if it is lost. Restarts and retries are unlimited by default.
            compute=ray.data.ActorPoolStrategy(size=size, max_tasks_in_flight_per_actor=1),
            num_cpus=pool.cpus_each,
            num_gpus=pool.gpus_each,
        )
        # Prefetching would delay a sealed chunk until the next one is sealed.
        for batch in outcomes.iter_batches(batch_size=1, prefetch_batches=0, batch_format="numpy"):
            outcome: Any = batch["outcome"]
            yield pickle.loads(outcome[0])


@contextmanager
def _quiet_ray_data() -> Iterator[None]:
    """Suppress the progress bars and messages of Ray Data; the commands show their own."""
    from ray.data import DataContext

    context: Any = DataContext.get_current()
    logger = logging.getLogger("ray.data")
    before = context.enable_progress_bars, context.print_on_execution_start, logger.level
    context.enable_progress_bars, context.print_on_execution_start = False, False
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        context.enable_progress_bars, context.print_on_execution_start = before[:2]
        logger.setLevel(before[2])
