"""Cost of adapting an index to its map: seconds, bytes, and milliseconds per search before and after.

    python benchmarks/adaptation.py 1300 100000 1000000 --index-type flat

makes an index of that many made-up descriptors of `sift-vlad`'s dimension, along streets with 10 images a place, adapts
it, and writes `benchmarks/results/adaptation.md` and `adaptation.json`. Local maps are one cell each: they play no part
where positions are known.
"""

import argparse
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from time import perf_counter

import numpy as np
import torch
from measuring import write_result

from vpr_dhe.features.base import ExtractorSpec
from vpr_dhe.index.ingest import ExtractedImage
from vpr_dhe.index.place_index import PlaceIndex
from vpr_dhe.index.rows import Digest, FileStamp
from vpr_dhe.index.segments import IndexedImage
from vpr_dhe.records import Features, Frame, Grid, ImageRecord, MetricPosition, Size

RESULTS = Path(__file__).parent / "results"
SIZE, GRID = Size(64, 64), Grid(1, 1)
IMAGES_PER_PLACE, SEGMENT_IMAGES = 10, 8192
QUERIES, NEIGHBOURS = 50, 100


@dataclass(frozen=True)
class Row:
    """Figures of one size; `search_ms` are medians before and after adaptation."""

    images: int
    dimension: int
    index_type: str
    adapt_s: float
    build_s: float
    steps: tuple[str, ...]
    extra_bytes: int
    search_ms: tuple[float, float]


class Town:
    """Descriptors of places 50 m apart along streets; light varies along a tenth of the directions."""

    def __init__(self, dimension: int) -> None:
        self.dimension = dimension

    def vectors(self, first: int, count: int, view: int = 0) -> np.ndarray:
        """Descriptors of some images, the same on each call."""
        places = np.arange(first, first + count) // IMAGES_PER_PLACE
        looks = np.stack([np.random.default_rng((0, place)).standard_normal(self.dimension) for place in places])
        random = np.random.default_rng((1 + view, first))
        light = np.zeros((count, self.dimension))
        light[:, : self.dimension // 10] = 3 * random.standard_normal((count, self.dimension // 10))
        vectors = looks + light + 1 + 1.5 * random.standard_normal((count, self.dimension))
        return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)

    def record(self, number: int) -> ImageRecord:
        """Record of an image: 1,000 places a street, streets 100 m apart."""
        street, place = divmod(number // IMAGES_PER_PLACE, 1000)
        return ImageRecord(f"{number}.jpg", MetricPosition(50.0 * place + number % IMAGES_PER_PLACE, 100.0 * street))


def filled(folder: Path, town: Town, count: int, index_type: str) -> PlaceIndex:
    """Index of a town."""
    spec = ExtractorSpec("made-up", "0" * 64, town.dimension, 4, GRID, SIZE, True, 3.0)
    index = PlaceIndex.create(folder, spec, folder.parent, codec="float16", index_type=index_type)
    cell, frame = torch.full((1, 4), 0.5), Frame(SIZE, SIZE)
    for first in range(0, count, SEGMENT_IMAGES):
        vectors = torch.from_numpy(town.vectors(first, min(SEGMENT_IMAGES, count - first)))
        with index.writing() as writer:
            writer.add_extracted(
                [
                    ExtractedImage(
                        place,
                        IndexedImage(town.record(first + place), SIZE),
                        FileStamp(0, 0, Digest(0, first + place)),
                        Features(vector, cell, GRID, frame),
                    )
                    for place, vector in enumerate(vectors)
                ]
            )
    return index


def search_ms(index: PlaceIndex, queries: torch.Tensor) -> float:
    """Median time of one search."""
    index.search(queries[:1], NEIGHBOURS)
    times = []
    for query in queries:
        started = perf_counter()
        index.search(query[None], NEIGHBOURS)
        times.append(1e3 * (perf_counter() - started))
    return median(times)


def state_bytes(index: PlaceIndex) -> int:
    """Size of the files of the adaptation."""
    return sum(file.bytes for file in index.manifest.adaptation_files)


def measure(folder: Path, count: int, dimension: int, index_type: str) -> Row:
    """Fill, build, adapt."""
    town = Town(dimension)
    index = filled(folder, town, count, index_type)
    started = perf_counter()
    index.build_vector_files()
    build_s = perf_counter() - started
    places = np.random.default_rng(3).integers(0, count, QUERIES)
    queries = torch.from_numpy(np.concatenate([town.vectors(int(place), 1, view=1) for place in places]))
    before = search_ms(index, queries)
    started = perf_counter()
    report = index.adapt()
    adapt_s = perf_counter() - started
    kinds = {file.built.kind for file in index.manifest.vector_files} or {"flat"}
    after = search_ms(index, queries)
    return Row(
        count, dimension, kinds.pop(), adapt_s - build_s, build_s, report.steps, state_bytes(index), (before, after)
    )


def markdown(rows: Sequence[Row]) -> str:
    """Format all rows as a table."""
    lines = [
        "| images | dimension | index type | adapt, s | FAISS file, s | steps | bytes per image | search, ms "
        "| adapted, ms |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {row.images:,} | {row.dimension} | {row.index_type} | {row.adapt_s:.1f} | {row.build_s:.1f} | "
        f"{', '.join(row.steps)} | {row.extra_bytes / row.images:.0f} | {row.search_ms[0]:.2f} "
        f"| {row.search_ms[1]:.2f} |"
        for row in rows
    ]
    return "\n".join(lines)


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("images", nargs="+", type=int)
    parser.add_argument("--dimension", type=int, default=384)
    parser.add_argument("--index-type", default="auto", help="flat leaves out the time of FAISS files")
    parser.add_argument("--out", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    rows = []
    for count in arguments.images:
        with tempfile.TemporaryDirectory(prefix="vpr-dhe-adaptation-") as folder:
            rows.append(measure(Path(folder) / "index", count, arguments.dimension, arguments.index_type))
        print(markdown(rows[-1:]).splitlines()[-1], flush=True)
        (arguments.out / "adaptation.md").write_text(f"{markdown(rows)}\n")
        write_result(arguments.out / "adaptation.json", "adaptation", {"rows": [vars(row) for row in rows]})


if __name__ == "__main__":
    main()
