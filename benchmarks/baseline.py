"""A NumPy, OpenCV, FAISS and ONNX Runtime script, as a user would write it, beside this package.

    python benchmarks/baseline.py ../shared/data/streetview_west --index INDEX

`Script` is the baseline: it decodes and resizes by OpenCV, runs the exported network, searches an `IndexFlatIP`,
matches the query with one candidate after the other by a matrix product, estimates by `cv2.USAC_MAGSAC`, and ranks by
inliers. The package answers the same queries in the same process, in turns, and ranks by evidence. `re-rank 100` starts
for both from the same features and the same candidates. `--index` keeps the index of the package for a later run. On a
machine that does other work, `--processor-time` counts the time of this process alone (use `--threads 1`).

Writes `benchmarks/results/baseline.md` and `baseline.json`, or those of another `--name`.
"""

import argparse
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from time import perf_counter, process_time
from typing import Any, TypeAlias

import cv2
import faiss
import numpy as np
import onnxruntime
import torch
from measuring import RESULTS, folder_for, table, write_result
from threadpoolctl import threadpool_limits

from vpr_dhe.datasets import PlaceDataset, read_places
from vpr_dhe.export.exporting import export_model
from vpr_dhe.features.extractor import load_extractor
from vpr_dhe.images.decoding import decode_image
from vpr_dhe.index.place_index import PlaceIndex
from vpr_dhe.localization.localizer import Localizer
from vpr_dhe.localization.ranking import rerank
from vpr_dhe.localization.retrieval import Candidate
from vpr_dhe.models.names import LITE_VLAD
from vpr_dhe.records import Features, Frame, Grid, Size
from vpr_dhe.runtime.sampling import evenly_spread

Clock: TypeAlias = Callable[[], float]

CANDIDATES = 100
RANKS = (1, 5, 10)
_SIDE, _CELLS, _THRESHOLD_PX = 320, 20, 24.0
_ITERATIONS, _CONFIDENCE = 2000, 0.9999
# Images of the database that both index, to compare their throughput.
_INDEXED = 256


class Script:
    """The baseline: lite-vlad's network in ONNX Runtime, and a loop over candidates."""

    def __init__(self, network: Path, threads: int) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        self._network = onnxruntime.InferenceSession(network, options, providers=["CPUExecutionProvider"])
        faiss.omp_set_num_threads(threads)
        side = (np.arange(_CELLS) + 0.5) * _SIDE / _CELLS - 0.5
        self._centres = np.stack([np.tile(side, _CELLS), np.repeat(side, _CELLS)], axis=1)

    def extract(self, path: Path) -> tuple[np.ndarray, np.ndarray]:
        """Extract the descriptor and the local map of an image file."""
        image = cv2.imdecode(np.fromfile(path, np.uint8), cv2.IMREAD_COLOR_RGB)
        assert image is not None
        resized = cv2.resize(image, (_SIDE, _SIDE), interpolation=cv2.INTER_AREA)
        pixels = (resized.astype(np.float32) - 127) / 128
        vectors, maps, *_ = self.run(pixels.transpose(2, 0, 1)[None])
        return vectors[0], maps[0]

    def run(self, pixels: np.ndarray) -> list[np.ndarray]:
        """Run the network on a batch."""
        return [np.asarray(output) for output in self._network.run(None, {"images": pixels})]

    def index(self, paths: Sequence[Path]) -> None:
        """Index images, with local maps in half precision in memory."""
        found = [self.extract(path) for path in paths]
        vectors = np.stack([vector for vector, _ in found])
        self._maps = np.stack([local_map.astype(np.float16) for _, local_map in found])
        self._faiss = faiss.IndexFlatIP(vectors.shape[1])
        self._faiss.add(vectors)

    def search(self, vector: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Find the similarities and the rows of the nearest images."""
        similarities, rows = self._faiss.search(vector[None], CANDIDATES)
        return similarities[0], rows[0]

    def rerank(self, query: np.ndarray, rows: np.ndarray) -> np.ndarray:
        """Sort candidates by the inliers of a homography each."""
        inliers = [self.inliers(query, self._maps[row].astype(np.float32)) for row in rows]
        return rows[np.argsort(-np.array(inliers), kind="stable")]

    def inliers(self, query: np.ndarray, candidate: np.ndarray) -> int:
        """Count the inliers of one candidate."""
        mutual, there = self.match(query, candidate)
        return self.estimate(self._centres[mutual], self._centres[there])

    def match(self, query: np.ndarray, candidate: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Find mutual nearest neighbours."""
        similarity = query @ candidate.T
        there, back = similarity.argmax(axis=1), similarity.argmax(axis=0)
        mutual = np.flatnonzero((back[there] == np.arange(len(query))) & (similarity.max(axis=1) > 0))
        return mutual, there[mutual]

    def estimate(self, source: np.ndarray, target: np.ndarray) -> int:
        """Count the inliers of a homography."""
        if len(source) < 4:
            return 0
        _, inliers = cv2.findHomography(
            source, target, cv2.USAC_MAGSAC, _THRESHOLD_PX, maxIters=_ITERATIONS, confidence=_CONFIDENCE
        )
        return 0 if inliers is None else int(inliers.sum())


@dataclass(frozen=True)
class Row:
    """A stage in milliseconds by script and package, and the recall@1, 5 and 10 in percent of each, if it ranks."""

    stage: str
    script_ms: float
    package_ms: float
    script_recall: tuple[float, ...] = ()
    package_recall: tuple[float, ...] = ()


class Comparison:
    """Both implementations on one data set, whose queries they answer in turns."""

    def __init__(self, dataset: PlaceDataset, script: Script, localizer: Localizer, queries: int, clock: Clock) -> None:
        self._dataset, self._script, self._localizer, self._clock = dataset, script, localizer, clock
        chosen = evenly_spread(len(dataset.queries.records), queries)
        self._queries = [(row, dataset.queries.folder / dataset.queries.records[row].path) for row in chosen.tolist()]
        self._row_of = {record.path: row for row, record in enumerate(dataset.database.records)}
        self._times: dict[str, list[float]] = {}
        self._hits: dict[str, list[list[bool]]] = {}

    def _timed(self, name: str, work: Callable[[], Any]) -> Any:
        started = self._clock()
        found = work()
        self._times.setdefault(name, []).append(1e3 * (self._clock() - started))
        return found

    def _count(self, name: str, query: int, rows: Sequence[int]) -> None:
        assert self._dataset.positives is not None
        positives = set(self._dataset.positives[query].tolist())
        self._hits.setdefault(name, []).append([bool(positives & set(rows[:rank])) for rank in RANKS])

    def measure(self) -> list[Row]:
        """Answer all queries by both, the first one once more to warm up."""
        self._answer(*self._queries[0])
        self._times, self._hits = {}, {}
        for query, path in self._queries:
            self._answer(query, path)
        return [self._row("re-rank 100", "rerank"), self._row("whole query", "whole")]

    def _row(self, stage: str, name: str) -> Row:
        script, package = (self._hits[f"{who} {name}"] for who in ("script", "package"))
        return Row(
            stage,
            median(self._times[f"script {name}"]),
            median(self._times[f"package {name}"]),
            tuple((100 * np.mean(script, axis=0)).round(1).tolist()),
            tuple((100 * np.mean(package, axis=0)).round(1).tolist()),
        )

    def _answer(self, query: int, path: Path) -> None:
        vector, local_map = self._script.extract(path)
        similarities, rows = self._script.search(vector)
        ranking = self._timed("script rerank", lambda: self._script.rerank(local_map, rows))
        self._count("script rerank", query, ranking.tolist())
        self._count("package rerank", query, self._reranked(vector, local_map, similarities, rows))

        def whole() -> np.ndarray:
            vector, local_map = self._script.extract(path)
            return self._script.rerank(local_map, self._script.search(vector)[1])

        self._count("script whole", query, self._timed("script whole", whole).tolist())
        found = self._timed("package whole", lambda: self._localizer.localize(path, top_k=max(RANKS)))
        self._count("package whole", query, [self._row_of[match.image] for match in found.matches])

    def _reranked(
        self, vector: np.ndarray, local_map: np.ndarray, similarities: np.ndarray, rows: np.ndarray
    ) -> list[int]:
        """Rows re-ranked by the package, from the features and the candidates of the script."""
        side, index = Size(_SIDE, _SIDE), self._localizer.database
        grid, frame = Grid(_CELLS, _CELLS), Frame(side, side)
        features = Features(torch.from_numpy(vector), torch.from_numpy(local_map), grid, frame)
        paths = [self._dataset.database.records[row].path for row in rows.tolist()]
        row_of = {self._index.find(path): row for path, row in zip(paths, rows.tolist(), strict=True)}
        pairs = zip(row_of, similarities.tolist(), strict=True)
        candidates = [Candidate(id, similarity, similarity) for id, similarity in pairs if id is not None]
        database, image = index.pinned(), np.zeros((8, 8, 3), np.uint8)
        found = self._timed(
            "package rerank", lambda: rerank(database, image, features, candidates, CANDIDATES, "evidence")
        )
        return [row_of[one.id] for one in found]

    @property
    def _index(self) -> PlaceIndex:
        return self._localizer.index


def indexing(dataset: PlaceDataset, script: Script, clock: Clock) -> Row:
    """Milliseconds an image of both; the package also writes segments durably and chooses a codec."""
    folder, extractor = dataset.database.folder, load_extractor(LITE_VLAD)
    records = dataset.database.records[:_INDEXED]
    extractor.extract([decode_image(folder / records[0].path)])
    started = clock()
    script.index([folder / record.path for record in records])
    by_script = clock() - started
    with TemporaryDirectory(prefix="vpr-dhe-benchmark-") as place:
        index = PlaceIndex.create(Path(place) / "index", extractor.spec, folder, codec="float16")
        started = clock()
        index.add(records, extractor)
        by_package = clock() - started
    return Row("index an image", 1e3 * by_script / len(records), 1e3 * by_package / len(records))


def opened(dataset: PlaceDataset, folder: Path) -> Localizer:
    """Open the index of the data set, made as by `vpr-dhe index --codec float16` if it is not there."""
    if not PlaceIndex.exists(folder):
        extractor = load_extractor(LITE_VLAD)
        index = PlaceIndex.create(folder, extractor.spec, dataset.database.folder, codec="float16")
        index.add(dataset.database.records, extractor)
        index.configure(rank_by="evidence", adapt="auto")
        index.adapt()
    return Localizer.open(folder)


def exported_network(folder: Path) -> Path:
    """Export lite-vlad's network to a new folder; returns its ONNX file."""
    export_model(LITE_VLAD, folder)
    return folder / "extractor.onnx"


def markdown(rows: Sequence[Row]) -> str:
    """Format all rows as a Markdown table."""
    header = ["stage", "script ms", "package ms", "times faster", "R@1/5/10 script", "package"]
    lines = [
        [
            row.stage,
            f"{row.script_ms:.1f}",
            f"{row.package_ms:.1f}",
            f"{row.script_ms / row.package_ms:.2f}",
            "/".join(f"{value:.1f}" for value in row.script_recall),
            "/".join(f"{value:.1f}" for value in row.package_recall),
        ]
        for row in rows
    ]
    return table(header, lines)


def limit_threads(count: int) -> None:
    """Limit the threads of all libraries, so that none waits busily beside the one that is measured."""
    torch.set_num_threads(count)
    cv2.setNumThreads(count)
    threadpool_limits(count)


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("dataset", type=Path)
    parser.add_argument("--index", type=Path, help="folder that keeps the index")
    parser.add_argument("--queries", type=int, default=113)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--name", default="baseline", help="name of the results")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of the results")
    parser.add_argument("--processor-time", action="store_true", help="measure the time of this process alone")
    arguments = parser.parse_args()
    clock = process_time if arguments.processor_time else perf_counter
    limit_threads(arguments.threads)
    dataset = read_places(arguments.dataset)
    with folder_for(arguments.index) as place, TemporaryDirectory(prefix="vpr-dhe-benchmark-") as exported:
        script = Script(exported_network(Path(exported) / "model"), arguments.threads)
        localizer = opened(dataset, place / "index")
        row = indexing(dataset, script, clock)
        script.index([dataset.database.folder / record.path for record in dataset.database.records])
        rows = [*Comparison(dataset, script, localizer, arguments.queries, clock).measure(), row]
    settings = {
        "images": len(dataset.database.records),
        "queries": arguments.queries,
        "candidates": CANDIDATES,
        "threads": arguments.threads,
        "time": "of the processor" if arguments.processor_time else "on the clock",
    }
    summary = ", ".join(f"{name} {value}" for name, value in settings.items())
    print(text := f"{summary}\n\n{markdown(rows)}")
    arguments.out.mkdir(parents=True, exist_ok=True)
    (arguments.out / f"{arguments.name}.md").write_text(f"{text}\n")
    document = {**settings, "rows": [asdict(row) for row in rows]}
    write_result(arguments.out / f"{arguments.name}.json", "baseline", document)


if __name__ == "__main__":
    main()
