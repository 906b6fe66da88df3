"""Ten ratios of processor time that detect performance regressions.

    python benchmarks/guard.py            # prints them beside those of results/guard.json
    python benchmarks/guard.py --update   # replaces those

Each ratio is the time of this package over that of the same work by NumPy, OpenCV, FAISS, ONNX Runtime or Python alone,
in one process, in turns, on one thread. So it depends little on the machine and on what else runs there; all data is
made up here. A ratio that grew by more than a fifth is marked, but nothing fails: it only asks for a second look. On
one free core the run takes about a minute.
"""

import argparse
import json
import resource
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from time import process_time

import cv2
import faiss
import numpy as np
import torch
from baseline import Script, exported_network
from growing import measure as measure_growth
from measuring import RESULTS, table, write_result
from scale import Places

from vpr_dhe.features.base import ExtractorSpec
from vpr_dhe.features.extractor import load_extractor
from vpr_dhe.geometry.matching import mutual_nearest_neighbours
from vpr_dhe.images.decoding import decode_reduced
from vpr_dhe.index.place_index import PlaceIndex
from vpr_dhe.index.vectors import ApproximateIndex, Queries, Stack, build_vector_file, exact_search
from vpr_dhe.localization.coarse_pass import coarse_votes
from vpr_dhe.models.names import LITE_VLAD
from vpr_dhe.records import Features, Frame, Grid, ImageRecord, Matches, Size
from vpr_dhe.verification.estimators.base import View, match_by_grid
from vpr_dhe.verification.estimators.opencv import OpenCvEstimator
from vpr_dhe.verification.verifier import SHORTLIST_SIZE, Verifier

_REPEATS = 7
_GREW = 1.2
_CELLS, _SIDE, _CANDIDATES = 20, 320, 100
_VECTORS, _NEIGHBOURS = 20_000, 100
_PHOTOS = 48


def ratio(ours: Callable[[], object], baseline: Callable[[], object], repeats: int = _REPEATS) -> float:
    """Ratio of the median times of the processor, after one call of each that is not measured."""
    times = [(_time(ours), _time(baseline)) for _ in range(repeats + 1)][1:]
    return median(ours for ours, _ in times) / median(other for _, other in times)


def _time(work: Callable[[], object]) -> float:
    started = process_time()
    work()
    return process_time() - started


def of_rerank(script: Script) -> Iterator[tuple[str, float]]:
    """Match, estimate and re-rank 100 candidates of lite-vlad's size, beside a loop of NumPy and OpenCV."""
    rng = np.random.default_rng(0)
    noise = rng.standard_normal((1 + _CANDIDATES, _CELLS**2, 64), np.float32)
    noise[1:] += noise[0]
    maps = torch.nn.functional.normalize(torch.from_numpy(noise), dim=-1)
    side, grid = Size(_SIDE, _SIDE), Grid(_CELLS, _CELLS)
    # Cells in random places, so that few matches agree.
    candidates = torch.stack([one[torch.from_numpy(rng.permutation(len(one)))] for one in maps[1:]])
    spec = ExtractorSpec("guard", "guard", 64, 64, grid, side, True, 1.5)
    features = Features(maps[0, 0], maps[0], grid, Frame(side, side))
    verifier = Verifier(OpenCvEstimator("magsac"))

    def views(matches_of: Callable[[int], Matches]) -> list[View]:
        return [View(features.frame, matches=partial(matches_of, row)) for row in range(_CANDIDATES)]

    query = View(features.frame, None, lambda: features)
    found = match_by_grid(features, candidates, spec)
    own, others = maps[0].numpy(), candidates.numpy()
    matched = [found(row) for row in range(_CANDIDATES)]

    def estimate_each() -> None:
        for one in matched:
            script.estimate(one.query_points.numpy(), one.candidate_points.numpy())

    def reranked() -> None:
        votes = coarse_votes(maps[0], grid, lambda rows, cells: mutual_nearest_neighbours(rows, candidates[:, cells]))
        shortlist = np.argsort(-votes, kind="stable")[:SHORTLIST_SIZE]
        of_shortlist = match_by_grid(features, candidates[shortlist], spec)
        verifier.verify(query, views(of_shortlist)[:SHORTLIST_SIZE])

    yield (
        "match 100 maps / NumPy",
        ratio(
            lambda: mutual_nearest_neighbours(maps[0], candidates), lambda: [script.match(own, one) for one in others]
        ),
    )
    yield "verify 100 / OpenCV", ratio(lambda: verifier.verify(query, views(found)), estimate_each)
    yield (
        "re-rank 100 / loop",
        ratio(reranked, lambda: [script.inliers(own, one) for one in others]),
    )


def of_search(folder: Path) -> Iterator[tuple[str, float]]:
    """Search 20,000 vectors by three types, beside FAISS itself with the same parameters."""
    places = Places(384)
    vectors = np.concatenate(list(places.database(_VECTORS)))
    queries = places.queries(_VECTORS, 50)
    flat = faiss.IndexFlatIP(vectors.shape[1])
    flat.add(vectors)

    def each(search: Callable[[np.ndarray], object]) -> Callable[[], object]:
        return lambda: [search(query[None]) for query in queries]

    def exactly(query: np.ndarray) -> object:
        return exact_search(vectors, Queries.extracted(query), _NEIGHBOURS, unit_norm=True)

    yield "search, flat / FAISS", ratio(each(exactly), each(lambda query: flat.search(query, _NEIGHBOURS)))
    for kind in ("hnsw", "rabitq"):
        path = folder / f"{kind}.faiss"
        info = build_vector_file(path, kind, Stack([vectors]), unit_norm=True)
        opened, raw = ApproximateIndex.open(path, info, unit_norm=True), faiss.read_index(str(path))
        name = "efSearch" if kind == "hnsw" else "nprobe"
        faiss.ParameterSpace().set_index_parameter(raw, name, info.parameters["effort"])
        count = max(_NEIGHBOURS, info.parameters["candidates"])
        ours = each(partial(_search, opened, vectors))
        yield f"search, {kind} / FAISS", ratio(ours, each(partial(_search_raw, raw, count)))


def _search(index: ApproximateIndex, vectors: np.ndarray, query: np.ndarray) -> object:
    return index.search(Queries.extracted(query), _NEIGHBOURS, vectors.__getitem__)


def _search_raw(index: faiss.Index, count: int, query: np.ndarray) -> object:
    return index.search(query, count)


def of_indexing(folder: Path, script: Script) -> Iterator[tuple[str, float]]:
    """Extract and index photos, beside ONNX Runtime alone, and beside decoding and that together."""
    rng, photos = np.random.default_rng(0), folder / "photos"
    photos.mkdir()
    for number in range(_PHOTOS):
        smooth = cv2.resize(rng.integers(0, 255, (24, 24, 3), np.uint8), (384, 384), interpolation=cv2.INTER_CUBIC)
        cv2.imwrite(str(photos / f"{number:03d}.jpg"), smooth)
    paths, extractor = sorted(photos.iterdir()), load_extractor(LITE_VLAD)
    contents = [path.read_bytes() for path in paths]
    images = [decode_reduced(content, extractor.spec.input_size).image for content in contents]
    blank = np.zeros((1, 3, _SIDE, _SIDE), np.float32)
    yield (
        "extract / ONNX Runtime",
        ratio(
            lambda: [extractor.extract([image]) for image in images[:8]], lambda: [script.run(blank) for _ in range(8)]
        ),
    )
    records, made = [ImageRecord(path.name) for path in paths], iter(range(1000))

    def index() -> None:
        place = PlaceIndex.create(folder / f"index-{next(made)}", extractor.spec, photos, codec="float16")
        place.add(records, extractor)

    def limit() -> None:
        for content in contents:
            cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR)
            script.run(blank)

    yield "index / decoding and ONNX Runtime", ratio(index, limit, repeats=3)


def of_start() -> Iterator[tuple[str, float]]:
    """Start the command line, beside Python."""
    code = "import sys; sys.argv = ['vpr-dhe', '--help']; from vpr_dhe.cli import main; main()"
    yield "vpr-dhe --help / python -c pass", _start(code) / _start("pass")


def _start(code: str) -> float:
    times: list[float] = []
    for _ in range(_REPEATS):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run([sys.executable, "-c", code], stdout=subprocess.DEVNULL, check=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        times.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    return median(times)


def of_growth(folder: Path) -> Iterator[tuple[str, float]]:
    """Add one image to an index of 100,000, beside one of 1,000."""
    large, small = (measure_growth(images, folder=folder).opened_ms for images in (100_000, 1_000))
    yield "add to 100,000 images / to 1,000", large / small


def measure() -> dict[str, float]:
    """Measure all ratios, and print each as it comes."""
    found: dict[str, float] = {}
    with TemporaryDirectory(prefix="vpr-dhe-guard-") as temporary:
        folder = Path(temporary)
        script = Script(exported_network(folder / "model"), threads=1)
        parts = (of_start(), of_rerank(script), of_search(folder), of_indexing(folder, script), of_growth(folder))
        for part in parts:
            for name, value in part:
                found[name] = round(value, 3)
                print(f"{name}: {value:.2f}", file=sys.stderr, flush=True)
    return found


def lines_of(found: dict[str, float], stored: dict[str, float]) -> Sequence[Sequence[str]]:
    """Rows of the table: each ratio today, the stored one, and a mark on those that grew."""
    return [
        [
            name,
            f"{value:.2f}",
            f"{stored[name]:.2f}" if name in stored else "",
            "slower" if value > _GREW * stored.get(name, value) else "",
        ]
        for name, value in found.items()
    ]


def main() -> None:
    """Measure and print, or update."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--update", action="store_true", help="replace results/guard.json")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    path = RESULTS / "guard.json"
    stored = json.loads(path.read_text())["ratios"] if path.exists() else {}
    found = measure()
    print(table(["time of this package / of", "now", "stored", ""], lines_of(found, stored)))
    if arguments.update:
        write_result(path, "guard", {"ratios": found})


if __name__ == "__main__":
    main()
