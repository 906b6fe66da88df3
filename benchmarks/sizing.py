"""Bytes, memory, hours and latency of indexes of a thousand to 100 million images, computed from measured figures.

    python benchmarks/sizing.py

Nothing is measured here. Figures come from `benchmarks/results/`: `scale_1000000.json` (search and build of each type),
`baseline.json` (processor time to index an image), `growing.json` (time to open an index) and
`scale_out_search.json` (round trip of a shard). Sizes of records are those of the code. Everything grows in proportion
to the number of images and of dimensions, which `docs/guides/scaling.md` states as formulas. Writes
`benchmarks/results/sizing_disk.md` and `sizing_cost.md`; a test computes them again.
"""

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from measuring import RESULTS, table

from vpr_dhe.index.codecs import CODECS, fit_codec, unsupported_reason
from vpr_dhe.index.rows import ROW
from vpr_dhe.index.segments import IndexedImage
from vpr_dhe.index.vector_files import COVERED_IMAGES
from vpr_dhe.index.vectors import FLAT
from vpr_dhe.index.vectors.types import choose_type
from vpr_dhe.records import GeoPosition, ImageRecord, Size

COUNTS = (1_000, 100_000, 1_000_000, 10_000_000, 100_000_000)
DIMENSION, CELLS, LOCAL_DIMENSION = 768, 400, 64
"""Sizes of lite-vlad."""
TARGET_MS = 100.0
"""Latency of the search that shards should stay below."""

# `benchmarks/scale.py` measured a million vectors of 384 dimensions.
_MEASURED_COUNT, _MEASURED_DIMENSION = 1_000_000, 384
# Memory of a query in a process of its own, whatever the index (docs/experiments/speed.md).
_PROCESS_GB = 0.37
_CORES = (2, 64)


@dataclass(frozen=True)
class TypeFigures:
    """Measured figures of an index type: of a million vectors of 384 dimensions."""

    build_s: float
    bytes_per_vector: float
    search_ms: float


def measured_types(results: Path = RESULTS) -> dict[str, TypeFigures]:
    """Read the processor times of all index types."""
    types = json.loads((results / f"scale_{_MEASURED_COUNT}.json").read_text())["types"]
    return {kind: _figures(numbers["build"], numbers["faiss"]["latency"]) for kind, numbers in types.items()}


def _figures(build: dict[str, Any] | None, latency: dict[str, float]) -> TypeFigures:
    if build is None:
        return TypeFigures(0.0, 0.0, latency["ms"])
    return TypeFigures(build["processor_s"], build["fact"]["bytes"] / _MEASURED_COUNT, latency["ms"])


def index_ms(results: Path = RESULTS) -> float:
    """Processor time to index a photo of 384 px, decoding and writing included."""
    rows = json.loads((results / "baseline.json").read_text())["rows"]
    return next(row["package_ms"] for row in rows if row["stage"] == "index an image")


def open_ms(images: int, results: Path = RESULTS) -> float:
    """Processor time to open an index in a new process, in proportion to the largest one that was measured."""
    rows = json.loads((results / "growing.json").read_text())["rows"]
    largest = max(rows, key=lambda row: row["images"])
    return largest["new_process_ms"] * max(1.0, images / largest["images"])


def round_trip_ms(results: Path = RESULTS) -> float:
    """Processor time that a query to four shards costs beyond its search in one process."""
    rows = json.loads((results / "scale_out_search.json").read_text())["rows"]
    row = next(row for row in rows if row["index_type"] == FLAT and row["shards"] == 4)
    return row["sharded_processor_ms"] - row["alone_processor_ms"]


def file_bytes(kind: str, count: int, dimension: int) -> float:
    """Bytes per vector of a FAISS file, as the docstrings of the types give them."""
    centroids = 4 * dimension * 4 / math.sqrt(min(count, COVERED_IMAGES))  # 4 sqrt(N) lists
    return {
        FLAT: 0.0,
        "hnsw": dimension + 272.0,
        "ivf-flat": 4 * dimension + 8 + centroids,
        "ivf-sq8": dimension + 8 + centroids,
        "rabitq": dimension / 8 + 16 + centroids,
        "binary-codes": 64.0,
    }[kind]


def map_bytes() -> dict[str, int]:
    """Bytes of a local map of lite-vlad by codec."""
    maps = torch.nn.functional.normalize(torch.randn(8, CELLS, LOCAL_DIMENSION), dim=-1)
    return {name: fit_codec(name, maps).record_bytes for name in CODECS if not unsupported_reason(name, maps)}


def metadata_bytes() -> int:
    """Bytes of an image's row and of its object, for a path of 24 characters and a position."""
    record = ImageRecord("drive-00042/frame-00417.jpg", GeoPosition(49.234567, 7.012345))
    return ROW.itemsize + len(json.dumps(asdict(IndexedImage(record, Size(384, 288))))) + 1


@dataclass(frozen=True)
class Sizing:
    """An index of so many images of lite-vlad, with the index type that `auto` chooses."""

    images: int
    kind: str
    vectors_gb: float
    file_gb: float
    metadata_gb: float
    memory_gb: float
    hours: tuple[float, ...]
    build_hours: float
    search_ms: float
    max_shards: int
    shards: int

    @classmethod
    def of(cls, images: int, results: Path = RESULTS) -> "Sizing":
        """Compute all figures."""
        kind = choose_type(images)
        measured = measured_types(results)[kind]
        wider, growth = DIMENSION / _MEASURED_DIMENSION, images / _MEASURED_COUNT
        vectors_gb = 4e-9 * DIMENSION * images
        file_gb = 1e-9 * file_bytes(kind, images, DIMENSION) * images
        # A graph answers one file at a time, in no more time if the file is smaller.
        files = max(1, math.ceil(images / COVERED_IMAGES))
        searched_ms = measured.search_ms * wider * (growth if kind == FLAT else files)
        # The rows of an image are mapped, and its id is in memory.
        rows_gb = 1e-9 * images * (ROW.itemsize + 8)
        return cls(
            images,
            kind,
            vectors_gb,
            file_gb,
            1e-9 * metadata_bytes() * images,
            _PROCESS_GB + rows_gb + (vectors_gb if kind == FLAT else file_gb),
            tuple(images * index_ms(results) / 3.6e6 / cores for cores in _CORES),
            measured.build_s * wider * growth / 3600,
            searched_ms,
            files if kind != FLAT else max(1, math.ceil(images / 32_768)),
            min(files, math.ceil(searched_ms / max(1.0, TARGET_MS - round_trip_ms(results)))),
        )


def disk_table(results: Path = RESULTS) -> str:
    """Gigabytes on disk by number of images: what every index has, and local maps by codec."""
    maps = map_bytes()
    header = [
        "images",
        "index type",
        "vectors",
        "FAISS file",
        "rows and records",
        *(f"maps, `{name}`" for name in maps),
    ]
    rows = []
    for sizing in (Sizing.of(count, results) for count in COUNTS):
        parts = [sizing.vectors_gb, sizing.file_gb, sizing.metadata_gb]
        parts += [1e-9 * size * sizing.images for size in maps.values()]
        rows.append([f"{sizing.images:,}", f"`{sizing.kind}`", *map(_gigabytes, parts)])
    return table(header, rows)


def cost_table(results: Path = RESULTS) -> str:
    """Memory, hours, latency and shards by number of images."""
    header = ["images", "index type", "memory of a search", *(f"extraction, {cores} cores" for cores in _CORES)]
    header += ["FAISS build", "opening", "search, one process", f"shards for {TARGET_MS:.0f} ms", "shards at most"]
    rows = [
        [
            f"{one.images:,}",
            f"`{one.kind}`",
            _gigabytes(one.memory_gb),
            *map(_hours, one.hours),
            _hours(one.build_hours) if one.file_gb else "",
            _milliseconds(open_ms(one.images, results)),
            _milliseconds(one.search_ms),
            str(one.shards),
            str(one.max_shards),
        ]
        for one in (Sizing.of(count, results) for count in COUNTS)
    ]
    return table(header, rows)


def _two_digits(value: float) -> str:
    """Round to two significant digits."""
    digits = max(0, 1 - math.floor(math.log10(value))) if value else 0
    return f"{round(value, 1 - math.floor(math.log10(value))):,.{digits}f}" if value else "0"


def _in_units(value: float, units: Sequence[tuple[float, str]]) -> str:
    """Format a value in the largest unit that it reaches, or else the last."""
    size, name = next((unit for unit in units if value >= unit[0]), units[-1])
    return f"{_two_digits(value / size)} {name}"


def _gigabytes(value: float) -> str:
    return _in_units(value, [(1000, "TB"), (1, "GB"), (1e-3, "MB")]) if value else ""


def _hours(value: float) -> str:
    return _in_units(value, [(1, "h"), (1 / 60, "min"), (1 / 3600, "s")])


def _milliseconds(value: float) -> str:
    return _in_units(value, [(1000, "s"), (1, "ms")])


def main() -> None:
    """Compute, print and write."""
    for name, text in (("sizing_disk", disk_table()), ("sizing_cost", cost_table())):
        print(f"{text}\n")
        (RESULTS / f"{name}.md").write_text(f"{text}\n")


if __name__ == "__main__":
    main()
