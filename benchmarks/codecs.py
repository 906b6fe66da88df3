"""Codecs of local maps: bytes per image, recall, and milliseconds to read 100 maps.

    python benchmarks/codecs.py DATA

DATA is a place data set in the standard layout. Its database is extracted once, and the index adapted to its map; for
each codec it is copied and stored anew with it, and all queries are localized. Cold reads follow after the page cache
has dropped the file, so they wait for the disk; warm ones are copies from the page cache. Reading includes the check of
the checksum.

Writes `benchmarks/results/codecs.md` and `codecs.json`.
"""

import argparse
import os
import shutil
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from operator import attrgetter
from pathlib import Path
from statistics import median
from time import perf_counter

import numpy as np
from measuring import RESULTS, table, write_result

from vpr_dhe.datasets import read_places
from vpr_dhe.datasets.base import PlaceDataset
from vpr_dhe.evaluation.place_evaluation import Settings, evaluate_dataset
from vpr_dhe.features.extractor import load_extractor
from vpr_dhe.index.codecs import CODECS
from vpr_dhe.index.codecs.registry import unsupported_reason
from vpr_dhe.index.map_adaptation import adapt_index
from vpr_dhe.index.place_index import PlaceIndex
from vpr_dhe.index.segments import LOCAL_MAPS
from vpr_dhe.index.stored_maps import StoredMaps
from vpr_dhe.models.names import LITE_VLAD
from vpr_dhe.verification.build import build_verifiers
from vpr_dhe.verification.estimators.resources import Resources

MAPS = 100
COLD_REPEATS = 30
WARM_REPEATS = 200


@dataclass(frozen=True)
class Reading:
    """Median milliseconds to read 100 maps from the disk, from the page cache, and to decode them."""

    cold_ms: float
    warm_ms: float
    decode_ms: float


@dataclass(frozen=True)
class Cost:
    """Size, recall and reading times of one codec."""

    codec: str
    bytes_per_map: int
    recall: dict[int, float]
    rerank_ms: float
    reading: Reading


def measure_reading(index: PlaceIndex) -> Reading:
    """Time the reading of random images' maps."""
    rng = np.random.default_rng(0)

    def choose() -> Callable[[], StoredMaps]:
        return partial(index.snapshot.stored_maps, rng.choice(index.ids, MAPS, replace=False))

    cold = []
    for _ in range(COLD_REPEATS):
        drop_from_page_cache(index)
        cold.append(elapsed_ms(choose()))
    index.local_maps(index.ids)
    warm = [elapsed_ms(choose()) for _ in range(WARM_REPEATS)]
    decoding = [elapsed_ms(partial(attrgetter("decoded"), choose()())) for _ in range(COLD_REPEATS)]
    return Reading(median(cold), median(warm), median(decoding))


def drop_from_page_cache(index: PlaceIndex) -> None:
    """Make the next read of a local map wait for the disk."""
    for path in (index.folder / "segments").glob(f"*/{LOCAL_MAPS}"):
        descriptor = os.open(path, os.O_RDONLY)
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(descriptor)


def elapsed_ms(work: Callable[[], object]) -> float:
    """Time one call, in milliseconds."""
    started = perf_counter()
    work()
    return 1e3 * (perf_counter() - started)


def measure(dataset: PlaceDataset, index: PlaceIndex, model: str, verifier: str) -> Cost:
    """Evaluate all queries of an index, after random reads."""
    reading = measure_reading(index)
    extractor = load_extractor(model)
    built = build_verifiers([verifier], Resources(extractor))
    (verified,) = evaluate_dataset(dataset, index, extractor, built, Settings(rank_by="evidence")).verifiers
    assert verified.scores is not None
    codec = index.snapshot.require_codec()
    return Cost(codec.name, codec.record_bytes, verified.scores.recall, verified.median_ms, reading)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("--model", default=LITE_VLAD)
    parser.add_argument("--verifier", default="magsac")
    parser.add_argument("--queries", type=int, help="maximum number of queries")
    parser.add_argument("--codecs", nargs="+", choices=list(CODECS), help="by default, all that take the model's maps")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of the results")
    arguments = parser.parse_args()
    dataset = read_places(arguments.data)
    if arguments.queries:
        dataset = dataset.limited(arguments.queries)
    costs = []
    with tempfile.TemporaryDirectory(prefix="vpr-dhe-codecs-") as name:
        first = Path(name) / "float16"
        extractor = load_extractor(arguments.model)
        made = PlaceIndex.create(first, extractor.spec, dataset.database.folder, codec="float16")
        made.add(dataset.database.records, extractor)
        adapt_index(made)
        some = made.local_maps(made.ids[:MAPS])
        for codec in arguments.codecs or [name for name in CODECS if unsupported_reason(name, some) is None]:
            folder = Path(name) / f"as-{codec}"
            shutil.copytree(first, folder)
            index = PlaceIndex.open(folder)
            index.compact(codec=codec)
            costs.append(measure(dataset, index, arguments.model, arguments.verifier))
            shutil.rmtree(folder)
            print(f"{costs[-1]}", flush=True)
    print(text := markdown(costs))
    (arguments.out / "codecs.md").write_text(f"{text}\n")
    result = {"model": arguments.model, "verifier": arguments.verifier, "codecs": [asdict(cost) for cost in costs]}
    write_result(arguments.out / "codecs.json", "codecs", result)


def markdown(costs: Sequence[Cost]) -> str:
    """Format a table with a row per codec."""
    header = ["codec", "bytes per map", "R@1", "R@5", "R@10", "ms to re-rank", "to read 100 from disk", "from cache"]
    rows = [
        [
            f"`{cost.codec}`",
            f"{cost.bytes_per_map:,}",
            *(f"{cost.recall[rank]:.1f}" for rank in (1, 5, 10)),
            f"{cost.rerank_ms:.0f}",
            f"{cost.reading.cold_ms:.1f}",
            f"{cost.reading.warm_ms:.1f}",
            f"{cost.reading.decode_ms:.1f}",
        ]
        for cost in costs
    ]
    return table([*header, "to decode"], rows)


if __name__ == "__main__":
    main()
