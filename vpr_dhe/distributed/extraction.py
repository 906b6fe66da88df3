"""Extraction of one index by many workers: each seals whole segments, one process publishes them.

All machines must see the folders of the images and of the index under the same paths. The caller's process holds the
right to write. It plans chunks, whose ids are given out beforehand, and sends them to Ray Data actors; each of these
extracts a chunk and seals it as a segment in the shared folder. What comes back is published as it comes. A lost worker
loses what it had not sealed, and Ray sends that chunk to another, so the index ends with what one machine would have
made: the same ids, vectors, local maps and skipped images.

    add_with_ray(index, records, extractor, Workers.of("sift-vlad", "cpu"), address="auto")
"""

import logging
import pickle
import socket
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from vpr_dhe.distributed.cluster import AUTO, connected, import_ray
from vpr_dhe.distributed.threads import Threads
from vpr_dhe.errors import BadInputError, VprDheError, WorkerLostError
from vpr_dhe.features.base import Extractor, ExtractorSpec, Precision
from vpr_dhe.features.extractor import load_extractor
from vpr_dhe.index.changes import Changes, changes_between
from vpr_dhe.index.codecs import LocalMapCodec
from vpr_dhe.index.files import unique_name
from vpr_dhe.index.ingest import Chunk, SealedChunk, Source, describe, load, seal_chunk
from vpr_dhe.index.manifest import SkippedImage
from vpr_dhe.index.place_index import AddReport, PlaceIndex, require_same_features
from vpr_dhe.index.writer import IndexWriter
from vpr_dhe.records import ImageRecord, Progress
from vpr_dhe.runtime.durable_files import TEMPORARY_SUFFIX

# A chunk that ends its worker every time would be retried for ever: Ray counts attempts to reach a dead worker, many
# per death, as retries too, so its limit (`max_task_retries`) cannot tell.
MAX_ATTEMPTS = 4

Outcome: TypeAlias = SealedChunk | VprDheError | OSError
"""What a worker made of a chunk. Errors on purpose travel as values: Ray would wrap them, and log a traceback."""


@dataclass(frozen=True)
class Workers:
    """Who extracts.

    `load` makes the extractor, in each worker once. `count` is the number of workers; None stands for as many as the
    cluster has processors for, where each takes `gpus_each` GPUs and as many CPUs as this process has threads.
    """

    load: Callable[[], Extractor]
    count: int | None = None
    gpus_each: float = 0.0

    @classmethod
    def of(cls, model: str, device: str, *, precision: Precision = "fp32", compiled: bool = False) -> "Workers":
        """As many workers as there is room for, each with a model by name, or from a file that all machines see."""
        name = str(Path(model).resolve()) if Path(model).is_file() else model
        load = partial(load_extractor, name, device, precision=precision, compiled=compiled)
        return cls(load, gpus_each=1.0 if device == "cuda" else 0.0)


def add_with_ray(
    index: PlaceIndex,
    records: Sequence[ImageRecord],
    extractor: Extractor,
    workers: Workers,
    *,
    address: str = AUTO,
    batch_size: int = 8,
    strict: bool = False,
    progress: Progress = lambda _: None,
) -> AddReport:
    """Bring an index up to date with these images, as `PlaceIndex.add` does, by the workers of a Ray cluster.

    Args:
        index: in a folder that all workers see under the same path, as they do its images.
        records: images, with paths relative to the index's images folder.
        extractor: must be the one that filled the index so far; used here for the images that a codec is fitted on.
        workers: who extracts all others.
        address: of the cluster, see `cluster.connected`; a process that has joined one already stays there.
        batch_size: images per call of the extractor.
        strict: make the first unreadable image an error instead of skipping it.
        progress: called with the number of images just dealt with.

    Raises:
        BadInputError: if there is no cluster at the address, it has no processors of the kind asked for, or a worker
            does not see the folders.
        IndexFormatError: if the extractor, here or in a worker, is another than the index was made with.
        IndexBusyError: if another process is writing.
        ImageError: with `strict`, at an image that cannot be read.
        WorkerLostError: if images end every worker that extracts them; all others are in the index then.
        MissingExtraError: if Ray is not installed.
    """
    require_same_features(index.spec, extractor.spec)
    with connected(address), index.writing() as writer:
        pool = _pool(workers)
        changes = changes_between(writer.snapshot, records)
        progress(changes.unchanged + len(changes.renewed))
        writer.renew(changes.renewed)
        intake = _Intake(writer, changes, progress)
        source = Source(Path(index.manifest.images_folder), extractor, batch_size, strict)
        chunks = writer.chunks(writer.settle_codec(changes.fresh, source, intake.publish, progress))
        if chunks:
            with _ledger(writer.segments_folder.resolve()) as ledger:
                codec = writer.snapshot.require_codec()
                job = _Job(ledger, source.folder, index.spec, codec, workers.load, Threads.here(), batch_size, strict)
                # Closed at once where an error ends the loop: workers would go on for as long as its traceback lives.
                with closing(_outcomes(chunks, job, pool)) as outcomes:
                    intake.take(chunks, outcomes)
    return intake.report()


class _Intake:
    """Publishes what workers seal, in whatever order it comes."""

    def __init__(self, writer: IndexWriter, changes: Changes, progress: Progress) -> None:
        self._writer, self._changes, self._progress = writer, changes, progress
        self._skipped: dict[int, tuple[SkippedImage, ...]] = {}

    def publish(self, sealed: SealedChunk) -> None:
        """Make a chunk part of the index."""
        self._writer.accept(sealed, self._changes.replaced)
        self._skipped[sealed.next_id] = sealed.skipped

    def take(self, chunks: Sequence[Chunk], outcomes: Iterator[tuple[int, Outcome]]) -> None:
        """Publish each chunk once, and merge small segments before the first chunk that is still out.

        Raises:
            VprDheError, OSError: the error of a worker. Lost chunks are told of when all others are published.
        """
        out = {chunk.first_id: chunk for chunk in chunks}
        lost: list[WorkerLostError] = []
        for first_id, outcome in outcomes:
            if isinstance(outcome, WorkerLostError):
                lost.append(outcome)
            elif isinstance(outcome, Exception):
                raise outcome
            elif chunk := out.pop(first_id, None):
                self.publish(outcome)
                self._progress(len(chunk.records))
                # Ids of merged segments may not enclose those of a chunk that is still to come.
                self._writer.merge_tail(below=next(iter(out), None))
        if lost:
            raise lost[0]
        assert not out, "Ray Data dropped chunks without an error"

    def report(self) -> AddReport:
        """What became of the images."""
        in_order = [image for _, images in sorted(self._skipped.items()) for image in images]
        return AddReport.of(self._changes, in_order)


@dataclass(frozen=True)
class _Job:
    """All that workers need to know.

    `ledger` is a folder among the segments that exists while the job runs: who sees it sees the index. Files in it
    count how often each chunk was begun.
    """

    ledger: Path
    images_folder: Path
    spec: ExtractorSpec
    codec: LocalMapCodec
    load: Callable[[], Extractor]
    threads: Threads
    batch_size: int
    strict: bool


@contextmanager
def _ledger(segments_folder: Path) -> Iterator[Path]:
    """A folder that no manifest names: after a crash, the next writer sweeps it up."""
    folder = segments_folder / f"{unique_name('extraction')}{TEMPORARY_SUFFIX}"
    folder.mkdir()
    try:
        yield folder
    finally:
        for entry in folder.iterdir():
            entry.unlink(missing_ok=True)
        folder.rmdir()


class ChunkSealer:
    """One worker: extracts chunks into sealed segments.

    The extractor is loaded with the first chunk. An error in a constructor would end the actor, and Ray Data would
    start another, whatever the error was.
    """

    def __init__(self, job: _Job) -> None:
        self._job = job

    def __call__(self, batch: dict[str, np.ndarray]) -> dict[str, list[bytes]]:
        """Seal the one chunk of a batch; bytes go in and out, which Ray Data need not understand."""
        chunk: Chunk = pickle.loads(batch["chunk"][0])
        return {"outcome": [pickle.dumps((chunk.first_id, self.outcome(chunk)))]}

    def outcome(self, chunk: Chunk) -> Outcome:
        """Extract and seal a chunk; what is no error on purpose is raised, for Ray to show where it comes from."""
        sealed: list[SealedChunk] = []
        try:
            source = self._source
            self._begin(chunk)
            described = describe(source, chunk.records, load(source, chunk.records))
            seal_chunk(self._job.ledger.parent, chunk, described, self._job.codec, publish=sealed.append)
        except (VprDheError, OSError) as error:
            return error
        return sealed[0]

    @cached_property
    def _source(self) -> Source:
        for folder in (self._job.ledger, self._job.images_folder):
            if not folder.is_dir():
                raise BadInputError(
                    f"worker {socket.gethostname()} does not see the folder {folder}; all machines must see images and "
                    "index under the same paths"
                )
        self._job.threads.use()  # before a runtime makes threads of its own
        extractor = self._job.load()
        require_same_features(self._job.spec, extractor.spec)
        return Source(self._job.images_folder, extractor, self._job.batch_size, self._job.strict)

    def _begin(self, chunk: Chunk) -> None:
        """Put down, where it outlives this worker, that a chunk is begun."""
        for attempt in range(MAX_ATTEMPTS):
            try:
                (self._job.ledger / f"{chunk.first_id}-{attempt}").touch(exist_ok=False)
            except FileExistsError:
                continue
            return
        raise WorkerLostError(
            f"{MAX_ATTEMPTS} workers ended, one after the other, while they extracted {chunk.records[0].path} to "
            f"{chunk.records[-1].path}; look for an image that takes too much memory, or give workers more of it"
        )


@dataclass(frozen=True)
class _Pool:
    """How many workers the cluster is asked for, and what each takes."""

    size: int
    cpus_each: float
    gpus_each: float


def _pool(workers: Workers) -> _Pool:
    """Fit workers to the machines of the cluster: Ray would wait for ever for what none of them has."""
    machines = [node["Resources"] for node in import_ray().nodes() if node["Alive"]]
    machines = [machine for machine in machines if machine.get("CPU") and machine.get("GPU", 0) >= workers.gpus_each]
    if not machines:
        wanted = f"{workers.gpus_each:g} GPUs" if workers.gpus_each else "a CPU"
        advice = "extract on CPUs (--device cpu)" if workers.gpus_each else "add machines with `ray start`"
        raise BadInputError(f"no machine of the Ray cluster has {wanted} for a worker; {advice}")
    cpus = min(float(Threads.here().most), *(machine["CPU"] for machine in machines))
    room = [machine["CPU"] // cpus for machine in machines]
    if workers.gpus_each:
        room = [min(most, machine["GPU"] // workers.gpus_each) for most, machine in zip(room, machines, strict=True)]
    return _Pool(workers.count or int(sum(room)), cpus, workers.gpus_each)


def _outcomes(chunks: Sequence[Chunk], job: _Job, pool: _Pool) -> Generator[tuple[int, Outcome]]:
    """Send chunks to workers; yields first id and outcome of each as it is done."""
    import ray.data

    with _quiet_ray_data():
        # A block of its own for each chunk: a block is what Ray Data sends, and sends again when its worker is lost.
        rows = ray.data.from_items(
            [{"chunk": pickle.dumps(chunk)} for chunk in chunks], override_num_blocks=len(chunks)
        )
        size = min(pool.size, len(chunks))
        outcomes = rows.map_batches(
            ChunkSealer,
            fn_constructor_args=(job,),
            batch_size=1,
            batch_format="numpy",
            # The size is fixed: a pool that may grow starts small, and grows only once chunks queue up at a worker,
            # where they would wait for it when it is lost. Restarts and retries are unlimited by default.
            compute=ray.data.ActorPoolStrategy(size=size, max_tasks_in_flight_per_actor=1),
            num_cpus=pool.cpus_each,
            num_gpus=pool.gpus_each,
        )
        # Any prefetching would hold back a sealed chunk until the next one is sealed.
        for batch in outcomes.iter_batches(batch_size=1, prefetch_batches=0, batch_format="numpy"):
            outcome: Any = batch["outcome"]
            yield pickle.loads(outcome[0])


@contextmanager
def _quiet_ray_data() -> Iterator[None]:
    """Keep the progress bars and messages of Ray Data away from the terminal of a command that has its own."""
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
