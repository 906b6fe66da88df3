"""Index types at scale: build time, size, memory, latency and recall, FAISS alone beside them, and an extrapolation.

    OMP_NUM_THREADS=1 python benchmarks/scale.py --count 1000000

The vectors are synthetic, in a temporary file laid out as in an index. Binary codes are 512 signs along random axes,
which find fewer neighbours than learned ones. Each measurement runs in a fresh process, so that its peak memory is its
own. FAISS alone (`raw_faiss.py`) builds and searches the same indexes in the same run; both are compared by the time of
the processor, on one thread with `OMP_NUM_THREADS=1`, because other work on the machine changes that least. Writes
`benchmarks/results/scale_COUNT.md` and `.json`, which keep the types that are not measured again.
"""

import argparse
import json
import math
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from measuring import RESULTS, Memory, in_own_process, measured_memory, write_result
from measuring import table as markdown
from raw_faiss import Latency, RawBuild, build_raw, code_search, compare, file_search, flat_search

from vpr_dhe.evaluation.provenance import this_machine
from vpr_dhe.index.vectors import (
    BINARY_CODES,
    FLAT,
    INDEX_TYPES,
    ApproximateIndex,
    Neighbours,
    Queries,
    Stack,
    VectorFileInfo,
    build_vector_file,
    exact_search,
)

NEIGHBOURS = 100
CODE_BITS = 512
QUERIES = 500
WARM_UP_QUERIES = 20
COMPARED_QUERIES, ROUNDS = 60, 3
GOAL = 100_000_000
_BLOCK_ROWS = 16384
# Usual sizes of memory, and the share of it that an index may fill.
_MACHINES_GB = (16, 32, 64, 128, 256, 512, 1024, 2048)
_USABLE = 0.8
_SSD_READ_MS = 0.1


@dataclass(frozen=True)
class Places:
    """Synthetic global descriptors: views of places, of unit norm.

    Descriptors of real maps vary much in few directions and little in most. Here the variance of direction i falls as
    1 / i, which leaves about 25 effective directions (participation ratio, of 384), both between places and, at 0.42
    times that variance, between views of one place, with isotropic noise on top. Two views of a place then have a
    cosine of about 0.65, the nearest of 33 views about 0.75, and the 100 nearest neighbours of a query include other
    places with similarities close together, which makes recall@100 hard.
    """

    dimension: int
    views: int = 33
    view_spread: float = 0.65
    noise: float = 0.3
    seed: int = 0

    def database(self, count: int) -> Iterator[np.ndarray]:
        """Yield all views in blocks (rows x dimension), those of a place side by side, as on a traverse."""
        centres = self._centres(count)
        rng = np.random.default_rng(self.seed + 1)
        for start in range(0, count, _BLOCK_ROWS):
            place = np.arange(start, min(start + _BLOCK_ROWS, count)) // self.views
            yield self._views_of(centres[place], rng)

    def queries(self, count: int, wanted: int) -> np.ndarray:
        """Make further views of places of the database."""
        centres = self._centres(count)
        rng = np.random.default_rng(self.seed + 2)
        return self._views_of(centres[rng.integers(0, len(centres), wanted)], rng)

    def _spectrum(self) -> np.ndarray:
        scale = np.arange(1, self.dimension + 1, dtype=np.float32) ** -0.5
        return scale / np.linalg.norm(scale)

    def _centres(self, count: int) -> np.ndarray:
        rng = np.random.default_rng(self.seed)
        return rng.standard_normal((-(-count // self.views), self.dimension), np.float32) * self._spectrum()

    def _views_of(self, centres: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        change = self.view_spread * self._spectrum() * rng.standard_normal(centres.shape, np.float32)
        noise = np.float32(self.noise / math.sqrt(self.dimension)) * rng.standard_normal(centres.shape, np.float32)
        views = centres + change + noise
        return views / np.linalg.norm(views, axis=1, keepdims=True)


@dataclass(frozen=True)
class Workplace:
    """Files that the processes of one run share."""

    folder: Path
    count: int
    dimension: int

    def vectors(self) -> np.ndarray:
        """Map the database (count x dimension)."""
        return np.asarray(np.memmap(self.folder / "vectors.f32", np.float32, "r", shape=(self.count, self.dimension)))

    def queries(self) -> np.ndarray:
        """Load the queries (queries x dimension)."""
        return np.load(self.folder / "queries.npy")

    def codes(self) -> np.ndarray:
        """Map the binary codes of the database (count x bytes)."""
        return np.memmap(self.folder / "codes.bin", np.uint8, "r", shape=(self.count, CODE_BITS // 8))

    def truth(self) -> np.ndarray:
        """Load the rows of the nearest neighbours of each query (queries x neighbours)."""
        return np.load(self.folder / "truth.npy")

    def file(self, kind: str) -> Path:
        """Return the FAISS file of a type."""
        return self.folder / f"{kind}.faiss"

    def raw_file(self, kind: str) -> Path:
        """Return the file that FAISS alone has written."""
        return self.folder / f"{kind}.raw"


@dataclass(frozen=True)
class Build:
    """Time, size and memory of a build; flat search needs no file."""

    seconds: float
    processor_s: float
    fact: VectorFileInfo
    memory: Memory


@dataclass(frozen=True)
class Search:
    """Latency, memory and recall (from 0 to 1) of single warm queries for the 100 nearest neighbours."""

    p50_ms: float
    p95_ms: float
    recall_at_1: float
    recall_at_100: float
    memory: Memory


def prepare(place: Workplace) -> None:
    """Write database, queries and ground truth."""
    places = Places(place.dimension)
    with (place.folder / "vectors.f32").open("wb") as file, (place.folder / "codes.bin").open("wb") as codes:
        for block in places.database(place.count):
            block.tofile(file)
            codes_of(block).tofile(codes)
    queries = places.queries(place.count, QUERIES)
    np.save(place.folder / "queries.npy", queries)
    np.save(
        place.folder / "truth.npy",
        exact_search(place.vectors(), Queries.extracted(queries), NEIGHBOURS, unit_norm=True).rows,
    )


def codes_of(vectors: np.ndarray) -> np.ndarray:
    """Make binary codes of descriptors: packed signs along random directions."""
    directions = np.random.default_rng(0).standard_normal((vectors.shape[1], CODE_BITS), np.float32)
    return np.packbits(vectors @ directions >= 0, axis=1)


def build(place: Workplace, kind: str) -> Build:
    """Build one FAISS file."""
    with measured_memory() as memory:
        started, processor = time.perf_counter(), time.process_time()
        vectors, codes = Stack([place.vectors()]), Stack([place.codes()])
        fact = build_vector_file(place.file(kind), kind, vectors, unit_norm=True, codes=codes)
        seconds, processor_s = time.perf_counter() - started, time.process_time() - processor
    return Build(seconds, processor_s, fact, memory())


def build_alone(place: Workplace, kind: str) -> RawBuild:
    """Build the same index by FAISS alone."""
    efforts = INDEX_TYPES[kind](place.count).efforts
    return build_raw(place.raw_file(kind), kind, place.vectors(), place.codes(), efforts)


def search(place: Workplace, kind: str, fact: VectorFileInfo | None) -> Search:
    """Search one FAISS file, or exactly without one."""
    queries, truth = place.queries(), place.truth()
    with measured_memory() as memory:
        find = searcher(place, kind, fact)
        for query in queries[:WARM_UP_QUERIES]:
            find(query[None])
        rows, elapsed_ms = [], []
        for query in queries:
            started = time.perf_counter()
            found = find(query[None])
            elapsed_ms.append(1e3 * (time.perf_counter() - started))
            rows.append(found.rows[0])
    p50_ms, p95_ms = np.percentile(elapsed_ms, [50, 95])
    nearest = np.mean([found[0] == true[0] for found, true in zip(rows, truth, strict=True)])
    among = np.mean([np.isin(found, true).mean() for found, true in zip(rows, truth, strict=True)])
    return Search(float(p50_ms), float(p95_ms), float(nearest), float(among), memory())


def searcher(place: Workplace, kind: str, fact: VectorFileInfo | None) -> Callable[[np.ndarray], Neighbours]:
    """Return a function from a query (1 x dimension) to its neighbours."""
    vectors = place.vectors()
    if fact is None:
        return lambda query: exact_search(vectors, Queries.extracted(query), NEIGHBOURS, unit_norm=True)
    index = ApproximateIndex.open(place.file(kind), fact, unit_norm=True)
    if INDEX_TYPES[kind].of_codes:
        # A network makes codes beside descriptors, so that they cost the search nothing.
        known = {query.tobytes(): codes_of(query[None]) for query in place.queries()}
        return lambda query: index.search(
            Queries.extracted(query, known[query.tobytes()]), NEIGHBOURS, vectors.__getitem__
        )
    return lambda query: index.search(Queries.extracted(query), NEIGHBOURS, vectors.__getitem__)


def compare_searches(place: Workplace, kind: str, fact: VectorFileInfo | None) -> Latency:
    """Search by this package and by FAISS alone, with the same parameters, in turns."""
    find, vectors = searcher(place, kind, fact), place.vectors()
    queries = [query[None] for query in place.queries()[:COMPARED_QUERIES]]
    if fact is None:
        alone = flat_search(vectors, NEIGHBOURS)
    elif kind == BINARY_CODES:
        known = {query.tobytes(): codes_of(query) for query in queries}
        candidates = fact.parameters["candidates"]
        code_of = lambda query: known[query.tobytes()]  # noqa: E731
        alone = code_search(place.raw_file(kind), code_of, candidates, vectors, NEIGHBOURS)
    else:
        effort, candidates = fact.parameters["effort"], fact.parameters["candidates"]
        alone = file_search(place.raw_file(kind), kind, effort, candidates, vectors, NEIGHBOURS)
    return compare([lambda query: find(query).rows[0], *alone], queries, ROUNDS)


def measure_types(place: Workplace, kinds: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Build and search each type."""
    in_own_process(prepare, place)
    measured = {}
    for kind in kinds:
        built = None if kind == FLAT else in_own_process(build, place, kind)
        found = in_own_process(search, place, kind, built and built.fact)
        alone = None if built is None else in_own_process(build_alone, place, kind)
        latency = in_own_process(compare_searches, place, kind, built and built.fact)
        measured[kind] = {
            "build": built and asdict(built),
            "search": asdict(found),
            "faiss": {"build": alone and asdict(alone), "latency": asdict(latency)},
        }
        for path in (place.file(kind), place.raw_file(kind)):
            path.unlink(missing_ok=True)
        print(table({kind: measured[kind]}, place.count), flush=True)
    return measured


def table(measured: dict[str, dict[str, Any]], count: int) -> str:
    """Format one line per type as Markdown: processor times of this package and of FAISS alone, bytes and recall."""
    header = [
        "type",
        "bytes per vector",
        "recall@1",
        "recall@100",
        "search ms",
        "FAISS ms",
        "ratio",
        "candidates alone",
    ]
    header += ["build s", "FAISS s", "and tuning s", "ratio"]
    lines = []
    for kind, numbers in measured.items():
        made, found, latency = numbers["build"], numbers["search"], numbers["faiss"]["latency"]
        lines.append(
            [
                f"`{kind}`",
                f"{made['fact']['bytes'] / count:.0f}" if made else "0",
                f"{found['recall_at_1']:.3f}",
                f"{found['recall_at_100']:.3f}",
                f"{latency['ms']:.2f}",
                f"{latency['faiss_ms']:.2f}",
                f"{latency['ratio']:.2f} ({latency['min_ratio']:.2f} to {latency['max_ratio']:.2f})",
                f"{latency['candidates_ms']:.2f}",
                *_builds(made, numbers["faiss"]["build"]),
            ]
        )
    return markdown(header, lines)


def _builds(made: dict[str, Any] | None, alone: dict[str, Any] | None) -> list[str]:
    if not made or not alone:
        return [""] * 4
    built, tuning = alone["processor_s"], alone["tuning_s"]
    ratio = f"{made['processor_s'] / (built + tuning):.2f}" if tuning else ""
    return [f"{made['processor_s']:.1f}", f"{built:.1f}", f"{tuning:.1f}" if tuning else "", ratio]


def extrapolate(measured: dict[str, dict[str, Any]], count: int, dimension: int) -> dict[str, dict[str, Any]]:
    """Extrapolate to GOAL vectors in proportion: an index builds a FAISS file per 2^20 images and searches them all.

    One file over all vectors would change little: with lists, recall@100 needed the same share of them (13 to 15 %) at
    100 000 and at 1 000 000 vectors; only the search time of a graph grows more slowly.
    """
    return {kind: _extrapolated(numbers, GOAL / count, dimension) for kind, numbers in measured.items()}


def _extrapolated(numbers: dict[str, Any], growth: float, dimension: int) -> dict[str, Any]:
    made, found = numbers["build"], numbers["search"]
    stored_gb = 4 * dimension * GOAL / 1e9
    file_gb = made["fact"]["bytes"] * growth / 1e9 if made else 0.0
    reads = made["fact"]["parameters"]["candidates"] * growth if made else 0.0
    return {
        "file_gb": file_gb,
        "stored_vectors_gb": stored_gb,
        "build_hours": made["seconds"] * growth / 3600 if made else 0.0,
        "p50_s": found["p50_ms"] * growth / 1e3,
        "p50_s_vectors_on_ssd": (found["p50_ms"] * growth + reads * _SSD_READ_MS) / 1e3,
        "memory_gb": next((size for size in _MACHINES_GB if _USABLE * size >= (file_gb or stored_gb)), None),
    }


def extrapolated_table(extrapolated: dict[str, dict[str, Any]], dimension: int) -> str:
    """Format one line per type, with the assumptions of the extrapolation."""
    lines = [
        f"extrapolated to {GOAL:.0e} vectors of {dimension} in proportion to N, on this machine; not measured",
        f"{'type':13}{'file GB':>9}{'vectors GB':>12}{'build h':>9}{'p50 s':>8}{'from SSD':>10}{'machine GB':>12}",
    ]
    lines += [
        f"{kind:13}{row['file_gb']:9.1f}{row['stored_vectors_gb']:12.1f}{row['build_hours']:9.1f}{row['p50_s']:8.2f}"
        f"{row['p50_s_vectors_on_ssd']:10.2f}{row['memory_gb'] or '-':>12}"
        for kind, row in extrapolated.items()
    ]
    lines += [
        "file GB = bytes per vector x N; vectors GB = 4 x dimension x N, on disk beside the file;",
        "build h and p50 s = measured x N / count, one file after another: k machines, or cores, take 1 / k of it;",
        f"from SSD = p50 + candidates x N / count x {_SSD_READ_MS} ms: a page fault each, the vectors out of memory;",
        f"machine GB = the smallest whose memory, {_USABLE:.0%} filled, holds the file (the vectors for flat search).",
    ]
    return "\n".join(lines)


def earlier_types(path: Path, dimension: int) -> dict[str, dict[str, Any]]:
    """Types of an earlier result of this size, if a processor of the same name measured it."""
    if not path.exists():
        return {}
    earlier = json.loads(path.read_text())
    same = earlier["machine"]["cpu"] == this_machine().cpu and earlier["dimension"] == dimension
    return earlier["types"] if same else {}


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--count", type=int, default=1_000_000)
    parser.add_argument("--dimension", type=int, default=384)
    parser.add_argument("--types", nargs="+", choices=list(INDEX_TYPES), default=list(INDEX_TYPES))
    parser.add_argument("--folder", type=Path, help="folder of temporary files: about 6 bytes per number")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of the results")
    arguments = parser.parse_args()
    out = arguments.out / f"scale_{arguments.count}.json"
    with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
        measured = measure_types(Workplace(Path(folder), arguments.count, arguments.dimension), arguments.types)
    together = earlier_types(out, arguments.dimension) | measured
    types = {kind: together[kind] for kind in INDEX_TYPES if kind in together}
    extrapolated = extrapolate(types, arguments.count, arguments.dimension)
    print(f"\n{arguments.count} vectors of {arguments.dimension}\n{table(types, arguments.count)}")
    print(f"\n{extrapolated_table(extrapolated, arguments.dimension)}")
    result = {
        "count": arguments.count,
        "dimension": arguments.dimension,
        "types": types,
        "extrapolated": {"count": GOAL, "types": extrapolated},
    }
    arguments.out.mkdir(parents=True, exist_ok=True)
    write_result(out, "scale", result)
    out.with_suffix(".md").write_text(f"{table(types, arguments.count)}\n")


if __name__ == "__main__":
    main()
