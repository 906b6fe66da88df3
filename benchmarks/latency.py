"""Time of the stages of a query, compared with a baseline and with the limits of the machine.

    vpr-dhe index DATABASE --out INDEX
    python benchmarks/latency.py INDEX QUERIES

extracts some of the queries, retrieves candidates for each, and runs every stage and every verifier on them repeatedly,
in turns, so that other work on the machine affects all alike. The baseline is a straightforward implementation in the
same process: maps decoded to single precision and to all their dimensions, one product per candidate, the largest of
each row and of each column, one estimate after the other. The limit is that of memory or arithmetic, by the measured
bandwidth and throughput of the machine: bytes that have to be read, or multiplications that have to be done. Results
are in `benchmarks/results/latency.md` and `latency.json`.
"""

import argparse
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from measuring import RESULTS, seconds, write_result
from torch import Tensor

from vpr_dhe.features.base import Extractor
from vpr_dhe.features.extractor import load_extractor
from vpr_dhe.geometry.matching import MutualNeighbours, match_in_parts
from vpr_dhe.images.decoding import decode_image
from vpr_dhe.images.listing import list_images
from vpr_dhe.index.place_index import PlaceIndex
from vpr_dhe.index.snapshot import Snapshot
from vpr_dhe.localization.candidate_maps import CandidateMaps
from vpr_dhe.localization.coarse_pass import coarse_cells
from vpr_dhe.localization.database import PinnedIndex
from vpr_dhe.localization.ranking import rerank
from vpr_dhe.localization.retrieval import Candidate, retrieve
from vpr_dhe.records import Features, Image
from vpr_dhe.runtime.cpu_features import has_integer_products
from vpr_dhe.verification.build import build_verifiers
from vpr_dhe.verification.estimators.base import View, matches_of_cells
from vpr_dhe.verification.estimators.resources import Resources
from vpr_dhe.verification.verifier import Verifier

REFERENCE = "magsac"
_VERIFIERS = ("magsac", "accurate", "poselib", "dhe-lite")
_BANDWIDTH_BYTES = 1 << 28
_PRODUCT_SIDE = 1536


@dataclass(frozen=True)
class Limits:
    """Bandwidth and throughput of this machine, on the threads of torch."""

    read_bytes: float
    single_precision: float
    eight_bits: float | None


@dataclass(frozen=True)
class Row:
    """Result of one stage in milliseconds per query; `plain_ms` is the baseline, `limit_ms` the limit if any."""

    stage: str
    median_ms: float
    least_ms: float
    most_ms: float
    plain_ms: float | None = None
    limit_ms: float | None = None


@dataclass(frozen=True)
class Query:
    """Query image with its features and candidates."""

    image: Image
    features: Features
    candidates: list[Candidate]


@dataclass(frozen=True)
class Stage:
    """Function that is timed for each query, its baseline, and the limit in seconds."""

    run: Callable[[Query], object]
    baseline: Callable[[Query], object] | None = None
    limit_s: float | None = None


def measured_limits() -> Limits:
    """Measure the bandwidth of memory, and the throughput of matrix products in the caches."""
    block = np.ones(_BANDWIDTH_BYTES, np.uint8)
    operations = 2 * _PRODUCT_SIDE**3
    single = torch.rand(_PRODUCT_SIDE, _PRODUCT_SIDE)
    bytes_ = torch.ones(_PRODUCT_SIDE, _PRODUCT_SIDE, dtype=torch.int8)
    integers = has_integer_products(torch.device("cpu"))
    return Limits(
        _BANDWIDTH_BYTES / _min_seconds(lambda: block.view(np.uint64).max()),
        operations / _min_seconds(lambda: single @ single),
        operations / _min_seconds(lambda: torch.ops.aten._int_mm(bytes_, bytes_)) if integers else None,
    )


def _min_seconds(work: Callable[[], object]) -> float:
    return min(seconds(work) for _ in range(7))


def baseline_match(snapshot: Snapshot, found: Query) -> MutualNeighbours:
    """Find mutual nearest neighbours by a straightforward implementation."""
    own = torch.arange(snapshot.require_codec().cells)
    columns: list[tuple[Tensor, Tensor, Tensor]] = []
    for local_map in snapshot.local_maps(_ids(found)):
        similarity = found.features.local_map @ local_map.T
        best, there = similarity.max(dim=1)
        columns.append((there, (similarity.argmax(dim=0)[there] == own) & (best > 0), best))
    return MutualNeighbours(*(torch.stack(column) for column in zip(*columns, strict=True)))


def localizer_rerank(database: PinnedIndex, found: Query) -> None:
    """Re-rank as a localizer does."""
    rerank(database, found.image, found.features, found.candidates, len(found.candidates))


def baseline_rerank(verifier: Verifier, snapshot: Snapshot, found: Query) -> None:
    """Match by the baseline, then estimate one after the other, without a shortlist."""
    neighbours = baseline_match(snapshot, found)
    matches_of = matches_of_cells(lambda: neighbours, snapshot.manifest.spec)
    candidates = [
        View(snapshot.frame(id), lambda: found.image, matches=partial(matches_of, place))
        for place, id in enumerate(_ids(found))
    ]
    with one_thread():
        verifier.verify(View(found.features.frame, lambda: found.image, lambda: found.features), candidates)


@contextmanager
def one_thread() -> Iterator[None]:
    """Run serially."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _ids(found: Query) -> list[int]:
    return [candidate.id for candidate in found.candidates]


def stages_of(snapshot: Snapshot, extractor: Extractor, verifiers: Sequence[str], limits: Limits) -> dict[str, Stage]:
    """List all timed stages."""
    codec, spec = snapshot.require_codec(), snapshot.manifest.spec
    cells, count = codec.cells, len(snapshot.ids)

    def matched(found: Query) -> object:
        return snapshot.stored_maps(_ids(found)).match(found.features.local_map)

    def matched_exactly(found: Query) -> object:
        maps = snapshot.local_maps(_ids(found))
        return match_in_parts(found.features.local_map, len(maps), maps.__getitem__)

    def voted(found: Query) -> object:
        return CandidateMaps(snapshot, found.features, _ids(found)).shift_votes()

    def limit_of_matching(matched_cells: int, found_count: int) -> float:
        components = codec.project(torch.zeros(1, spec.local_dimension)).shape[1]
        per_second = limits.eight_bits if codec.eight_bits and limits.eight_bits else limits.single_precision
        products_s = 2 * matched_cells**2 * components * found_count / per_second
        return max(products_s, codec.record_bytes * found_count / limits.read_bytes)

    candidates = min(100, count)
    limit_s, coarse_s = (limit_of_matching(own, candidates) for own in (cells, len(coarse_cells(spec.grid))))
    stages = {
        "extract": Stage(lambda found: extractor.extract([found.image])),
        "search": Stage(
            lambda found: snapshot.search(found.features.global_descriptor[None], candidates),
            limit_s=4.0 * count * spec.dimension / limits.read_bytes,
        ),
        "read maps": Stage(
            lambda found: snapshot.stored_maps(_ids(found)),
            limit_s=codec.record_bytes * candidates / limits.read_bytes,
        ),
        "coarse pass": Stage(voted, limit_s=coarse_s),
        "read and match all": Stage(matched, partial(baseline_match, snapshot), limit_s),
        "read, decode and match in single precision": Stage(matched_exactly),
    }
    for name, verifier in build_verifiers(verifiers, Resources(extractor)).items():
        reranked = partial(localizer_rerank, PinnedIndex(snapshot, verifier))
        size = verifier.shortlist_size
        least_s = limit_s if size is None else coarse_s + limit_of_matching(cells, min(size, candidates))
        stages[f"re-rank, {name}"] = Stage(reranked, partial(baseline_rerank, verifier, snapshot), least_s)
    return stages


def measure(stages: Mapping[str, Stage], queries: Sequence[Query], repeats: int) -> list[Row]:
    """Time all stages in turns; the median over queries and repeats, and the spread of the medians of each turn."""
    turns: dict[str, list[float]] = {name: [] for name in stages}
    baseline: dict[str, list[float]] = {name: [] for name in stages}
    for _ in range(repeats + 1):  # the first turn warms the caches and is dropped
        for name, stage in stages.items():
            turns[name].append(median(seconds(partial(stage.run, found)) for found in queries))
            if stage.baseline:
                baseline[name].append(median(seconds(partial(stage.baseline, found)) for found in queries[:3]))
    return [
        Row(
            name,
            1e3 * median(turns[name][1:]),
            1e3 * min(turns[name][1:]),
            1e3 * max(turns[name][1:]),
            1e3 * median(baseline[name][1:]) if stage.baseline else None,
            None if stage.limit_s is None else 1e3 * stage.limit_s,
        )
        for name, stage in stages.items()
    ]


def markdown(rows: Sequence[Row], reference_ms: float) -> str:
    """Format all results as a Markdown table."""
    header = [
        "stage",
        "ms",
        "spread",
        "of magsac's re-ranking",
        "baseline ms",
        "times faster",
        "limit ms",
        "of the limit",
    ]
    lines = [header, ["---"] * len(header)]
    for row in rows:
        cells = [row.stage, f"{row.median_ms:.1f}", f"{row.least_ms:.1f} to {row.most_ms:.1f}"]
        cells.append(f"{row.median_ms / reference_ms:.2f}")
        cells += ["", ""] if row.plain_ms is None else [f"{row.plain_ms:.0f}", f"{row.plain_ms / row.median_ms:.1f}"]
        cells += ["", ""] if row.limit_ms is None else [f"{row.limit_ms:.2f}", f"{row.limit_ms / row.median_ms:.2f}"]
        lines.append(cells)
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def queries_of(extractor: Extractor, database: PinnedIndex, folder: Path, count: int) -> list[Query]:
    """Choose evenly spread images of a folder, with 100 candidates each."""
    paths = list_images(folder)
    images = [decode_image(folder / paths[number * len(paths) // count]) for number in range(count)]
    features = [extractor.extract([image])[0] for image in images]
    return [Query(image, of, retrieve(database, of, 100)) for image, of in zip(images, features, strict=True)]


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("index", type=Path)
    parser.add_argument("queries", type=Path, help="folder of images")
    parser.add_argument("--count", type=int, default=15, help="number of queries")
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--verifiers", nargs="+", default=_VERIFIERS)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of the results")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    index = PlaceIndex.open(arguments.index)
    extractor, limits = load_extractor(index.spec.model), measured_limits()
    database = PinnedIndex(index.snapshot, None)
    queries = queries_of(extractor, database, arguments.queries, arguments.count)
    rows = measure(stages_of(index.snapshot, extractor, arguments.verifiers, limits), queries, arguments.repeats)
    reference_ms = next(row.median_ms for row in rows if row.stage == f"re-rank, {REFERENCE}")
    settings: dict[str, Any] = {
        "images": len(index.ids),
        "codec": index.snapshot.require_codec().name,
        "candidates": min(100, len(index.ids)),
        "threads": arguments.threads,
        "queries": arguments.count,
        "repeats": arguments.repeats,
    }
    summary = ", ".join(f"{name} {value}" for name, value in settings.items())
    print(table := f"{summary}\n\n{markdown(rows, reference_ms)}")
    arguments.out.mkdir(parents=True, exist_ok=True)
    (arguments.out / "latency.md").write_text(f"{table}\n")
    document = {**settings, "limits": asdict(limits), "rows": [asdict(row) for row in rows]}
    write_result(arguments.out / "latency.json", "latency", document)


if __name__ == "__main__":
    main()
