"""Indexing, queries, re-ranking and search on a GPU, beside the CPU of the same machine, in eight minutes.

    python benchmarks/gpu.py
    python benchmarks/gpu.py --device cpu --small   # tries the script itself where there is no GPU

All inputs are made here: views of the synthetic town, networks that the package contains, a DHE head of random weights
(whose speed is that of any), and made-up vectors. Each part runs in a process of its own with a time limit; a part that
fails or runs out of time is reported, and the others go on. FAISS searches on a GPU only if faiss-gpu-cu12 is installed
instead of faiss-cpu.

Writes `benchmarks/results/gpu.md` and `gpu.json` with the machine, the driver and the commit.
"""

import argparse
import multiprocessing
import subprocess
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from time import perf_counter
from typing import Any, TypeAlias

import numpy as np
import torch
from measuring import RESULTS, seconds, table, write_result
from scale import NEIGHBOURS, Places

from vpr_dhe.datasets import read_places
from vpr_dhe.features.extractor import load_extractor
from vpr_dhe.images.decoding import decode_image
from vpr_dhe.index.place_index import PlaceIndex
from vpr_dhe.index.vectors import INDEX_TYPES, ApproximateIndex, Queries, Stack, build_vector_file, gpu_is_present
from vpr_dhe.localization.database import PinnedIndex, VerifiedIndex
from vpr_dhe.localization.localizer import Localizer
from vpr_dhe.localization.ranking import rerank
from vpr_dhe.localization.retrieval import retrieve
from vpr_dhe.models.names import CCT_OFFLINE, LITE_VLAD, SIFT_VLAD
from vpr_dhe.runtime.choices import ExtractorPrecision
from vpr_dhe.synthetic_town.town import SyntheticTown, write_town
from vpr_dhe.verification.build import build_verifier
from vpr_dhe.verification.estimators.dhe import DheEstimator, DheHead
from vpr_dhe.verification.estimators.resources import Resources
from vpr_dhe.verification.verifier import Verifier

TOTAL_S = 480.0
_CPU = "cpu"
_MODELS = (LITE_VLAD, CCT_OFFLINE)
_PRECISIONS: tuple[ExtractorPrecision, ...] = ("fp32", "bf16")
_VERIFIERS = ("magsac", "dhe-lite", "dhe")


@dataclass(frozen=True)
class Amount:
    """Amounts of work: views of the town, repeats of indexing them, queries, candidates each, and vectors."""

    views: int
    repeats: int
    queries: int
    candidates: int
    vectors: int
    dimension: int


FULL = Amount(views=200, repeats=4, queries=20, candidates=100, vectors=200_000, dimension=512)
SMALL = Amount(views=12, repeats=1, queries=1, candidates=2, vectors=5_000, dimension=64)


@dataclass(frozen=True)
class Row:
    """One figure: of `device` and, if it is another one, of the CPU of the same machine, in the same turns."""

    what: str
    unit: str
    on_device: float
    on_cpu: float | None = None

    @property
    def times_faster(self) -> float | None:
        """Ratio of both, above 1 if the device is faster."""
        if self.on_cpu is None:
            return None
        return self.on_device / self.on_cpu if self.unit.endswith("/s") else self.on_cpu / self.on_device


@dataclass(frozen=True)
class Part:
    """Outcome of a part: its rows, or in one sentence why there are none."""

    name: str
    seconds: float
    rows: tuple[Row, ...] = ()
    fault: str = ""


Measure: TypeAlias = Callable[[Path, str, Amount], list[Row]]


def write_inputs(folder: Path, amount: Amount) -> None:
    """Render the town, and index it by sift-vlad for the parts that re-rank."""
    town = SyntheticTown(0)
    cameras = town.database_cameras()[: amount.views]
    write_town(folder / "town", town, cameras, town.query_cameras(amount.queries, 0, cameras))
    dataset = read_places(folder / "town")
    extractor = load_extractor(SIFT_VLAD)
    index = PlaceIndex.create(folder / "index", extractor.spec, dataset.database.folder, codec="float16")
    index.add(dataset.database.records, extractor)


def _beside_cpu(
    device: str, what: str, unit: str, measure: Callable[[str], float], read: Callable[[float], float] = float
) -> Row:
    """Measure on the device and, unless that is the CPU, on the CPU."""
    on_cpu = None if device == _CPU else read(measure(_CPU))
    return Row(what, unit, read(measure(device)), on_cpu)


def _indexing(folder: Path, device: str, amount: Amount, model: str, precision: ExtractorPrecision) -> list[Row]:
    """Images a second of `PlaceIndex.add`, after a first run that warms up."""
    records = read_places(folder / "town").database.records
    photos = folder / "town/images/test/database"

    def per_second(on: str) -> float:
        extractor = load_extractor(model, on, precision=precision)
        batch = 8 if on == _CPU else 64
        repeats = amount.repeats if on != _CPU else 1

        def index(part: int, number: int) -> None:
            with TemporaryDirectory(dir=folder) as name:
                place = PlaceIndex.create(Path(name) / str(number), extractor.spec, photos, codec="float16")
                place.add(records[:part], extractor, batch_size=batch)

        index(min(batch, len(records)), 0)
        taken = [seconds(partial(index, len(records), number)) for number in range(repeats)]
        return len(records) / median(taken)

    return [_beside_cpu(device, f"index, {model}, {precision}", "images/s", per_second)]


def query(folder: Path, device: str, amount: Amount) -> list[Row]:
    """Latency of whole queries, from the file to the answer."""
    dataset = read_places(folder / "town")
    paths = [dataset.queries.folder / record.path for record in dataset.queries.records]
    rows = []
    for model in _MODELS:
        extractor = load_extractor(model, device)
        index = PlaceIndex.create(folder / f"of-{model}", extractor.spec, dataset.database.folder, codec="float16")
        index.add(dataset.database.records, extractor)

        def latency_ms(on: str, model: str = model, index: PlaceIndex = index) -> float:
            extractor = load_extractor(model, on)
            verifier = build_verifier("magsac", Resources(extractor, device=on))
            localizer = Localizer(VerifiedIndex(index, verifier), extractor, rerank=amount.candidates)
            return _median_ms([partial(localizer.localize, path) for path in paths])

        rows.append(_beside_cpu(device, f"query, {model}, magsac, top {amount.candidates}", "ms", latency_ms))
    return rows


def reranking(folder: Path, device: str, amount: Amount, name: str) -> list[Row]:
    """Re-ranking of the first candidates, with the network of the verifier on the device."""
    dataset, index = read_places(folder / "town"), PlaceIndex.open(folder / "index")
    extractor = load_extractor(SIFT_VLAD)
    images = [decode_image(dataset.queries.folder / record.path) for record in dataset.queries.records]
    torch.manual_seed(0)
    head = DheHead().eval() if name == "dhe" else None

    def latency_ms(on: str) -> float:
        verifier = Verifier(DheEstimator(head)) if head else build_verifier(name, Resources(extractor, device=on))
        database = PinnedIndex(index.snapshot, verifier)
        works: list[Callable[[], object]] = []
        # A query of random heads on a CPU takes seconds.
        for image in images if on != _CPU or not head else images[:2]:
            found = extractor.extract([image])[0]
            candidates = retrieve(database, found, amount.candidates)
            moved = replace(found, global_descriptor=found.global_descriptor.to(on), local_map=found.local_map.to(on))
            works.append(partial(rerank, database, image, moved, candidates, amount.candidates))
        return _median_ms(works)

    return [_beside_cpu(device, f"re-rank {amount.candidates}, {name}", "ms", latency_ms)]


def search(folder: Path, device: str, amount: Amount) -> list[Row]:
    """Search of FAISS files of the types that a GPU can hold."""
    if device != _CPU and not gpu_is_present():
        raise LookupError("FAISS finds no GPU; install faiss-gpu-cu12 instead of faiss-cpu")
    places = Places(amount.dimension)
    vectors = np.concatenate(list(places.database(amount.vectors)))
    queries = places.queries(amount.vectors, 50)
    rows = []
    for kind in ("flat", "ivf-sq8"):
        assert INDEX_TYPES[kind].on_gpu
        path = folder / f"{kind}.faiss"
        info = build_vector_file(path, kind, Stack([vectors]), unit_norm=True)

        def latency_ms(on: str, path: Path = path, info: Any = info) -> float:
            opened = ApproximateIndex.open(path, info, unit_norm=True, gpu=on != _CPU)
            asked = [Queries.extracted(one[None]) for one in queries]
            return _median_ms([partial(opened.search, one, NEIGHBOURS, vectors.__getitem__) for one in asked])

        rows.append(_beside_cpu(device, f"search {amount.vectors:,}, {kind}", "ms", latency_ms))
    return rows


def _median_ms(works: Sequence[Callable[[], object]]) -> float:
    """Median time of one call each, after one that warms up."""
    works[0]()
    return 1e3 * median(seconds(work) for work in works)


def parts() -> dict[str, tuple[Measure, float]]:
    """List all parts with their time limits in seconds, the most wanted first."""
    listed: dict[str, tuple[Measure, float]] = {}
    for model in _MODELS:
        for precision in _PRECISIONS:
            listed[f"index, {model}, {precision}"] = partial(_indexing, model=model, precision=precision), 60.0
    listed["query"] = query, 75.0
    listed |= {f"re-rank, {name}": (partial(reranking, name=name), 75.0) for name in _VERIFIERS}
    listed["search"] = search, 120.0
    return listed


def run_part(name: str, work: Callable[[], list[Row]], limit_s: float) -> Part:
    """Run a part in a process of its own, which ends after a time limit, and report how it went."""
    context, started = multiprocessing.get_context("spawn"), perf_counter()
    receiving, sending = context.Pipe(duplex=False)
    process = context.Process(target=_answer, args=(work, sending), daemon=True)
    process.start()
    sending.close()
    rows: tuple[Row, ...] = ()
    fault = f"took more than {limit_s:.0f} s"
    try:
        if receiving.poll(max(0.0, limit_s)):
            rows, fault = receiving.recv()
    except EOFError:
        process.join()
        fault = f"its process ended with exit code {process.exitcode}"
    process.kill()
    process.join()
    return Part(name, perf_counter() - started, rows, fault)


def _answer(work: Callable[[], list[Row]], sending: Connection) -> None:
    try:
        sending.send((tuple(work()), ""))
    except Exception as error:
        sending.send(((), f"{type(error).__name__}: {' '.join(str(error).split())}"[:300]))


def markdown(found: Sequence[Part]) -> str:
    """Format all rows as a Markdown table, and what failed as a list."""
    lines = [
        [
            row.what,
            row.unit,
            f"{row.on_device:.1f}",
            "" if row.on_cpu is None else f"{row.on_cpu:.1f}",
            "" if row.times_faster is None else f"{row.times_faster:.1f}",
        ]
        for part in found
        for row in part.rows
    ]
    text = table(["measured", "unit", "device", "CPU", "times faster"], lines)
    faults = [f"- {part.name}: {part.fault}" for part in found if part.fault]
    return "\n".join([text, "", "Not measured:", "", *faults] if faults else [text])


def driver() -> str | None:
    """Version of the driver, as nvidia-smi says it; None without one."""
    command = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    with suppress(OSError, subprocess.SubprocessError):
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=20).stdout.strip()
    return None


def measure(device: str, amount: Amount, total_s: float, chosen: Sequence[str]) -> list[Part]:
    """Run all chosen parts within the time that there is."""
    started, found = perf_counter(), list[Part]()
    with TemporaryDirectory(prefix="vpr-dhe-gpu-") as name:
        folder = Path(name)
        inputs = run_part("inputs", partial(_written, folder, amount), total_s)
        print(f"inputs: {inputs.fault or f'{inputs.seconds:.0f} s'}", file=sys.stderr, flush=True)
        if inputs.fault:
            return [inputs]
        for part, (work, limit_s) in parts().items():
            if not any(part.startswith(prefix) for prefix in chosen):
                continue
            left_s = min(limit_s, total_s - (perf_counter() - started))
            found.append(run_part(part, partial(work, folder, device, amount), left_s))
            print(f"{part}: {found[-1].fault or f'{found[-1].seconds:.0f} s'}", file=sys.stderr, flush=True)
    return found


def _written(folder: Path, amount: Amount) -> list[Row]:
    write_inputs(folder, amount)
    return []


def main() -> int:
    """Measure, print and write; exit code 2 without a CUDA device, 1 if a part failed."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--small", action="store_true", help="little work, to try the script")
    parser.add_argument("--parts", nargs="+", default=[""], help="only parts whose names begin so, such as `index`")
    parser.add_argument("--seconds", type=float, default=TOTAL_S, help="time limit of all parts together")
    parser.add_argument("--out", type=Path, help="folder of the results [benchmarks/results; none with --small]")
    arguments = parser.parse_args()
    if arguments.device.startswith("cuda") and not torch.cuda.is_available():
        print(
            "torch finds no CUDA device; run this on a machine with one, or try it with --device cpu --small",
            file=sys.stderr,
        )
        return 2
    found = measure(arguments.device, SMALL if arguments.small else FULL, arguments.seconds, arguments.parts)
    print(text := markdown(found))
    out = arguments.out or (None if arguments.small else RESULTS)
    if out:
        out.mkdir(parents=True, exist_ok=True)
        (out / "gpu.md").write_text(f"{text}\n")
        facts = {"driver": driver(), "cuda": torch.version.cuda, "small": arguments.small}
        document = facts | {"parts": [asdict(part) for part in found]}
        write_result(out / "gpu.json", "gpu", document, device=arguments.device)
    return int(any(part.fault for part in found))


if __name__ == "__main__":
    sys.exit(main())
