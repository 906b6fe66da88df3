"""Extraction by Ray workers against one process, and search of an index in shards against one.

    python benchmarks/scale_out.py extraction PHOTOS --workers 1 2 4
    python benchmarks/scale_out.py search --count 1000000 --shards 1 4

All runs on this machine, each worker and each shard on one thread, so the difference is the overhead of Ray. Processor
time is that of the whole tree of processes, the cluster included; on a machine that does other work, compare that.

`extraction` indexes a quarter of the photos, then all of them, each in a fresh process. The difference is the cost of
an image; the rest is paid once: models are loaded and workers started. The start of the cluster is timed separately.

`search` searches made-up vectors, with a FAISS file over every quarter of them and local maps of two bytes. It compares
the index in one process, without Ray, with shards, in turns; all must find the same images and the same similarities.

Writes `benchmarks/results/scale_out_extraction` and `scale_out_search`, `.md` and `.json` each.
"""

import argparse
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter
from typing import Any

import numpy as np
import torch
from growing import BlankExtractor, made_up_segment
from measuring import RESULTS, folder_for, in_own_process, processor_seconds, table, write_result
from scale import NEIGHBOURS, Places

from vpr_dhe.datasets.standard import read_split
from vpr_dhe.distributed.extraction import Workers, add_with_ray
from vpr_dhe.distributed.sharded_index import ShardedIndex
from vpr_dhe.features.base import ExtractorSpec
from vpr_dhe.features.extractor import load_extractor
from vpr_dhe.index import vector_files
from vpr_dhe.index.image_folders import ImageFolders
from vpr_dhe.index.ingest import Source
from vpr_dhe.index.place_index import PlaceIndex
from vpr_dhe.index.vectors import INDEX_TYPES
from vpr_dhe.localization.database import PinnedDatabase, PinnedIndex
from vpr_dhe.models.names import LITE_VLAD
from vpr_dhe.records import Grid, ImageRecord, Size
from vpr_dhe.runtime.sampling import evenly_spread

_FILES = 4
_WARM_UP_QUERIES = 20
_OBJECT_STORE_BYTES = 256 << 20


@contextmanager
def cluster(processors: int) -> Iterator[None]:
    """Start Ray on this machine with so many processors, whatever the machine has."""
    import ray

    ray.init(
        address="local",
        num_cpus=processors,
        include_dashboard=False,
        log_to_driver=False,
        logging_level="ERROR",
        object_store_memory=_OBJECT_STORE_BYTES,
        # Ray lowers the priority of its workers, so that other work on the machine would hold up them alone.
        _system_config={"worker_niceness": 0},
    )
    try:
        yield
    finally:
        ray.shutdown()


@dataclass(frozen=True)
class Indexing:
    """Time of indexing: of the clock, of all processors, and to start the cluster."""

    wall_s: float
    processor_s: float
    cluster_s: float


@dataclass(frozen=True)
class ExtractionRow:
    """Extraction without Ray (0 workers) or by some workers: cost per image, and what is paid once."""

    workers: int
    images_per_second: float
    processor_ms: float
    once_wall_s: float
    once_processor_s: float
    cluster_s: float


def index_photos(folder: Path, photos: Path, records: Sequence[ImageRecord], model: str, workers: int) -> Indexing:
    """Index photos in this process or, with workers, by Ray."""
    torch.set_num_threads(1)
    if not workers:
        return _timed_indexing(folder, photos, records, model, 0, 0.0)
    started = perf_counter()
    with cluster(workers):
        return _timed_indexing(folder, photos, records, model, workers, perf_counter() - started)


def _timed_indexing(
    folder: Path, photos: Path, records: Sequence[ImageRecord], model: str, workers: int, cluster_s: float
) -> Indexing:
    started, processor = perf_counter(), processor_seconds()
    extractor = load_extractor(model)
    index = PlaceIndex.create(folder, extractor.spec, photos, codec="float16", index_type="flat")
    if workers:
        add_with_ray(index, records, extractor, replace(Workers.of(model, "cpu"), count=workers))
    else:
        index.add(records, extractor)
    taken = perf_counter() - started, processor_seconds() - processor
    return Indexing(*taken, cluster_s)


def measure_extraction(photos: Path, count: int, workers: Sequence[int], model: str) -> list[ExtractionRow]:
    """Index photos without Ray, and by each number of workers."""
    records = read_split(photos).records
    records = [records[place] for place in evenly_spread(len(records), count)]
    parts = records[: count // 4], records
    rows: list[ExtractionRow] = []
    for number in (0, *workers):
        with TemporaryDirectory(prefix="vpr-dhe-scale-out-") as folder:
            few, many = (
                in_own_process(index_photos, Path(folder) / str(len(part)), photos, part, model, number)
                for part in parts
            )
        images = len(parts[1]) - len(parts[0])
        wall_s, processor_s = (many.wall_s - few.wall_s) / images, (many.processor_s - few.processor_s) / images
        once = many.wall_s - count * wall_s, many.processor_s - count * processor_s
        rows.append(ExtractionRow(number, 1 / wall_s, 1e3 * processor_s, *once, many.cluster_s))
    return rows


def extraction_table(rows: Sequence[ExtractionRow]) -> str:
    """Format all rows as a Markdown table."""
    alone = rows[0]
    header = ["workers", "images/s", "ratio", "processor ms/image", "ratio", "once, s", "once, processor s"]
    lines = [
        [
            str(row.workers) if row.workers else "without Ray",
            f"{row.images_per_second:.1f}",
            f"{row.images_per_second / alone.images_per_second:.2f}",
            f"{row.processor_ms:.1f}",
            f"{row.processor_ms / alone.processor_ms:.2f}",
            f"{row.once_wall_s:.1f}",
            f"{row.once_processor_s:.1f}",
            f"{row.cluster_s:.1f}",
        ]
        for row in rows
    ]
    return table([*header, "start of the cluster, s"], lines)


@dataclass(frozen=True)
class SearchRow:
    """Search of one type in some shards, and in this process in the same turns; times of one query."""

    index_type: str
    shards: int
    open_s: float
    alone_ms: float
    sharded_ms: float
    alone_processor_ms: float
    sharded_processor_ms: float
    same_ranking: bool


def _of_size(blocks: Iterator[np.ndarray], size: int) -> Iterator[np.ndarray]:
    """Cut blocks of rows into blocks of another size."""
    rest = next(blocks)
    for block in blocks:
        rest = np.concatenate([rest, block])
        while len(rest) >= size:
            yield rest[:size]
            rest = rest[size:]
    for start in range(0, len(rest), size):
        yield np.ascontiguousarray(rest[start : start + size])


def made_up_index(folder: Path, count: int, dimension: int, index_type: str) -> None:
    """Make an index of images that do not exist, in 16 segments, with FAISS files over four of them each."""
    spec = ExtractorSpec("made-up", "made-up", dimension, 1, Grid(1, 1), Size(16, 16), True, 1.0)
    index = PlaceIndex.create(folder, spec, folder.parent, codec="float16", index_type=index_type)
    size = -(-count // (4 * _FILES))
    blocks = _of_size(Places(dimension).database(count), size)
    with index.writing() as writer:
        # Only chooses the codec, which needs no images.
        writer.ensure_codec([], Source(ImageFolders(str(folder.parent)), BlankExtractor(), 1), len, int)
        manifest = writer.manifest
        for number, block in enumerate(blocks):
            segment = made_up_segment(writer.segments_folder, number * size, len(block), block)
            manifest = manifest.with_segment(segment)
        writer.publish(replace(manifest, next_id=count))
    vector_files.COVERED_IMAGES = 4 * size
    PlaceIndex.open(folder).build_vector_files()


def measure_search(folder: Path, count: int, dimension: int, queries: int, shards: Sequence[int]) -> list[SearchRow]:
    """Search an index by each number of shards, and in this process in the same turns."""
    torch.set_num_threads(1)
    index = PlaceIndex.open(folder)
    alone = PinnedIndex(index.snapshot, None)
    asked = torch.from_numpy(Places(dimension).queries(count, queries))
    kind = index.manifest.vector_files[0].built.kind if index.manifest.vector_files else "flat"
    rows: list[SearchRow] = []
    with cluster(max(shards)):
        for number in shards:
            started = perf_counter()
            with ShardedIndex.open(folder, None, shards=number) as sharded:
                opened = perf_counter() - started
                rows.append(_compared(kind, alone, sharded, opened, asked))
    return rows


def _compared(kind: str, alone: PinnedDatabase, sharded: ShardedIndex, open_s: float, asked: torch.Tensor) -> SearchRow:
    """Compare single queries in turns, then the processor time of all of them, one database after the other."""
    databases: tuple[Callable[[], PinnedDatabase], ...] = (lambda: alone, sharded.pinned)
    times: tuple[list[float], ...] = ([], [])
    same = True
    for turn, query in enumerate(torch.cat([asked[:_WARM_UP_QUERIES], asked])):
        found = []
        for database, elapsed_ms in zip(databases, times, strict=True):
            started = perf_counter()
            found.append(database().search(query[None], NEIGHBOURS))
            if turn >= _WARM_UP_QUERIES:
                elapsed_ms.append(1e3 * (perf_counter() - started))
        same &= np.array_equal(found[0].ids, found[1].ids)
        same &= np.array_equal(found[0].similarities, found[1].similarities)
    processor_ms: list[float] = []
    for database in databases:
        before = processor_seconds()
        for query in asked:
            database().search(query[None], NEIGHBOURS)
        processor_ms.append(1e3 * (processor_seconds() - before) / len(asked))
    alone_ms, sharded_ms = (float(np.median(elapsed_ms)) for elapsed_ms in times)
    return SearchRow(kind, len(sharded.shards), open_s, alone_ms, sharded_ms, *processor_ms, same)


def search_table(rows: Sequence[SearchRow]) -> str:
    """Format all rows as a Markdown table."""
    lines = [
        [
            f"`{row.index_type}`",
            str(row.shards),
            f"{row.alone_ms:.1f}",
            f"{row.sharded_ms:.1f}",
            f"{row.sharded_ms / row.alone_ms:.2f}",
            f"{row.alone_processor_ms:.1f}",
            f"{row.sharded_processor_ms:.1f}",
            f"{row.open_s:.0f}",
            "yes" if row.same_ranking else "no",
        ]
        for row in rows
    ]
    header = ["type", "shards", "without Ray, ms", "sharded, ms", "ratio", "without Ray, processor ms"]
    return table([*header, "sharded, processor ms", "to open, s", "same ranking"], lines)


def _write(out: Path, name: str, settings: dict[str, Any], rows: Sequence[Any], text: str) -> None:
    """Print and write a table, with all digits beside it."""
    summary = ", ".join(f"{key} {value}" for key, value in settings.items())
    print(text := f"{summary}\n\n{text}")
    out.mkdir(parents=True, exist_ok=True)
    (out / f"{name}.md").write_text(f"{text}\n")
    write_result(out / f"{name}.json", name, settings | {"rows": [asdict(row) for row in rows]})


def run_extraction(arguments: argparse.Namespace) -> None:
    """Measure extraction, print and write."""
    rows = measure_extraction(arguments.photos, arguments.count, arguments.workers, arguments.model)
    settings = {"model": arguments.model, "images": arguments.count}
    _write(arguments.out, "scale_out_extraction", settings, rows, extraction_table(rows))


def run_search(arguments: argparse.Namespace) -> None:
    """Measure search by each type, print and write."""
    rows: list[SearchRow] = []
    size = (arguments.count, arguments.dimension)
    for kind in arguments.types:
        with folder_for(arguments.cache) as cache:
            folder = cache / f"{kind}-{arguments.count}-{arguments.dimension}"
            if not PlaceIndex.has_images(folder):
                in_own_process(made_up_index, folder, *size, kind)
            rows += in_own_process(measure_search, folder, *size, arguments.queries, arguments.shards)
    settings = {"vectors": arguments.count, "dimensions": arguments.dimension, "queries": arguments.queries}
    _write(arguments.out, "scale_out_search", settings, rows, search_table(rows))


def main() -> None:
    """Parse the command line and run."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parts = parser.add_subparsers(required=True)
    extraction = parts.add_parser("extraction", help="by Ray workers")
    extraction.add_argument("photos", type=Path, help="folder of images")
    extraction.add_argument("--count", type=int, default=400)
    extraction.add_argument("--workers", type=int, nargs="+", default=[1, 2, 4])
    extraction.add_argument("--model", default=LITE_VLAD)
    extraction.set_defaults(run=run_extraction)
    search = parts.add_parser("search", help="in shards")
    search.add_argument("--count", type=int, default=1_000_000, help="of vectors")
    search.add_argument("--dimension", type=int, default=512)
    search.add_argument("--types", nargs="+", choices=list(INDEX_TYPES), default=["flat", "hnsw"])
    search.add_argument("--shards", type=int, nargs="+", default=[1, 4])
    search.add_argument("--queries", type=int, default=100)
    search.add_argument("--cache", type=Path, help="keep the indexes in this folder, for a later run")
    search.set_defaults(run=run_search)
    for part in (extraction, search):
        part.add_argument("--out", type=Path, default=RESULTS, help="folder of the results")
    arguments = parser.parse_args()
    arguments.run(arguments)


if __name__ == "__main__":
    main()
