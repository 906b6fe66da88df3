"""Speed of the published DHE network in lower precision, and its agreement in ranking.

    python benchmarks/dhe_head.py DATA --queries 60 --rerank 10

Published weights, or a GPU to train them, are not always available, and a network of random weights cannot rank. So its
last layer is fitted by ridge regression to the corners that MAGSAC finds for these very candidates, which makes its
rankings meaningful. The results compare precisions, and are not the accuracy of the network. For a trained network,
whose activations may have outliers, use `vpr-dhe evaluate DATA --model MODEL --verifier dhe --precision int8`.

The baseline is the network in fp32, one candidate after the other; other precisions run in batches. All timings are on
one thread.
Writes `benchmarks/results/dhe_head.md` and `dhe_head.json`.
"""

import argparse
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from statistics import median
from typing import get_args

import torch
from jaxtyping import Float, Float64
from latency import one_thread
from measuring import RESULTS, seconds, write_result
from torch import Tensor

from vpr_dhe.datasets import PlaceDataset, Protocol, read_places
from vpr_dhe.evaluation.feature_cache import FeatureCache
from vpr_dhe.evaluation.place_evaluation import EvaluationResult, MethodResult, Settings, evaluate_dataset
from vpr_dhe.features.base import Extractor
from vpr_dhe.features.extractor import load_extractor
from vpr_dhe.geometry.coordinates import corners
from vpr_dhe.geometry.homography import project
from vpr_dhe.images.loading import load_image
from vpr_dhe.index.place_index import PlaceIndex
from vpr_dhe.localization.database import PinnedIndex
from vpr_dhe.localization.ranking import rerank
from vpr_dhe.localization.retrieval import retrieve
from vpr_dhe.runtime.choices import Precision
from vpr_dhe.runtime.cpu_features import has_bfloat16_products, has_integer_linear_layers
from vpr_dhe.runtime.threads import in_parallel
from vpr_dhe.verification.build import build_verifiers
from vpr_dhe.verification.estimators.dhe import INPUT_SIZE, DheEstimator, DheHead, predictor
from vpr_dhe.verification.estimators.resources import Resources
from vpr_dhe.verification.verifier import Verifier

TEACHER = "magsac"
CPU = torch.device("cpu")
_RANKS = (1, 5, 10)
# Relative to the mean square of the features; the fit is then a few pixels from the corners of MAGSAC.
_RIDGE = 1e-2
# Wrong homographies of MAGSAC put corners anywhere.
_MAX_CORNER_SHIFT_PX = 384.0
_TIMED_CANDIDATES = 8


@dataclass(frozen=True)
class Pair:
    """Local maps of a query and a candidate, and the corners of the query's input as MAGSAC maps them."""

    query: Float[Tensor, "1 576 dimension"]
    candidate: Float[Tensor, "1 576 dimension"]
    corners_px: Float64[Tensor, "4 2"]


@dataclass(frozen=True)
class Row:
    """Result of one precision: milliseconds per candidate by turn, recall, and difference from fp32."""

    precision: str
    median_ms: float
    least_ms: float
    most_ms: float
    times_faster: float
    recall: dict[int, float]
    same_first: float
    same_inliers: float
    greatest_difference: int


def candidates_of(dataset: PlaceDataset, index: PlaceIndex, extractor: Extractor, count: int) -> list[Pair]:
    """Collect the candidates of all queries for which MAGSAC finds a homography."""
    verifier = build_verifiers([TEACHER], Resources(extractor))[TEACHER]
    database, square, pairs = PinnedIndex(index.snapshot, verifier), corners(INPUT_SIZE), []
    for record in dataset.queries.records:
        image = load_image(dataset.queries.folder / record.path)
        features = extractor.extract([image])[0]
        ranked = rerank(database, image, features, retrieve(database, features, count), count)
        maps = index.snapshot.local_maps([candidate.id for candidate in ranked])
        for candidate, local_map in zip(ranked, maps.split(1), strict=True):
            homography = candidate.verification.homography if candidate.verification else None
            if homography is None:
                continue
            there = project(torch.from_numpy(homography), square)
            if (there - square).abs().max() < _MAX_CORNER_SHIFT_PX:
                pairs.append(Pair(features.local_map[None].float(), local_map, there))
    return pairs


@torch.inference_mode()
def fitted_head(pairs: Sequence[Pair]) -> DheHead:
    """Build random transformers with a last layer fitted to the corners of each pair."""
    torch.manual_seed(0)
    head = DheHead().eval()
    flat = torch.stack(in_parallel(partial(_flat, head), pairs))
    corners_px = torch.stack([pair.corners_px for pair in pairs]).flatten(1)
    middle, middle_px = flat.mean(dim=0), corners_px.mean(dim=0)
    flat -= middle
    kernel = (flat @ flat.T).double()
    kernel += _RIDGE * kernel.diagonal().mean() * torch.eye(len(pairs), dtype=torch.float64)
    weights = (torch.linalg.solve(kernel, corners_px - middle_px).T.float() @ flat).contiguous()
    half_a_pixel = 0.5  # published points have their origin at the corner of the image
    head.linear.weight.zero_()[8:] = weights
    head.linear.bias[:8] = corners(INPUT_SIZE).flatten() + half_a_pixel
    head.linear.bias[8:] = middle_px + half_a_pixel - (weights @ middle).double()
    return head


def _flat(head: DheHead, pair: Pair) -> Float[Tensor, " numbers"]:
    with torch.inference_mode():
        return head.refined(pair.query, pair.candidate)[0].T.flatten()


def available() -> list[Precision]:
    """List the precisions that this processor supports, fp32 first."""
    has = {"bf16": has_bfloat16_products, "int8": has_integer_linear_layers}
    return [precision for precision in get_args(Precision) if precision not in has or has[precision](CPU)]


def timed(head: DheHead, pairs: Sequence[Pair], repeats: int) -> dict[Precision, list[float]]:
    """Time each precision in turns on one thread, in milliseconds per candidate, without the first turn."""
    query, candidates = pairs[0].query, torch.cat([pair.candidate for pair in pairs])
    works = {precision: partial(predictor(head, CPU, precision), query, candidates) for precision in available()}
    baseline = predictor(head, CPU, "fp32")
    works["fp32"] = lambda: [baseline(query, candidate) for candidate in candidates.split(1)]
    turns: dict[Precision, list[float]] = {precision: [] for precision in works}
    with one_thread():
        for _ in range(repeats + 1):
            for precision, work in works.items():
                turns[precision].append(1e3 * seconds(work) / len(candidates))
    return {precision: each[1:] for precision, each in turns.items()}


def compared(precision: Precision, ms: Sequence[float], baseline_ms: float, result: EvaluationResult) -> Row:
    """Compare one precision with the first, which is fp32."""
    methods = {method.name: method for method in result.verifiers}
    exact, found = _inliers(methods["fp32"]), _inliers(methods[precision])
    pairs = [(ours[row], theirs[row]) for ours, theirs in zip(exact, found, strict=True) for row in ours]
    scores = methods[precision].scores
    assert scores is not None, "the ground truth is known"
    return Row(
        precision,
        median(ms),
        min(ms),
        max(ms),
        baseline_ms / median(ms),
        scores.recall,
        100 * sum(next(iter(a)) == next(iter(b)) for a, b in zip(exact, found, strict=True)) / len(exact),
        100 * sum(a == b for a, b in pairs) / len(pairs),
        max(abs(a - b) for a, b in pairs),
    )


def _inliers(method: MethodResult) -> list[dict[int, int]]:
    """Map the rows of candidates to inliers for each query, best first."""
    return [{one.row: round(one.score) for one in predictions} for predictions in method.predictions]


def markdown(rows: Sequence[Row]) -> str:
    """Format all results as a Markdown table."""
    recalls = [f"R@{rank}" for rank in rows[0].recall]
    header = ["precision", "ms/candidate", "spread", "times faster", *recalls]
    header += ["same first, %", "same inliers, %", "inliers apart, at most"]
    lines = [header, ["---"] * len(header)]
    for row in rows:
        cells = [row.precision, f"{row.median_ms:.0f}", f"{row.least_ms:.0f} to {row.most_ms:.0f}"]
        cells += [f"{row.times_faster:.1f}", *(f"{value:.1f}" for value in row.recall.values())]
        cells += [f"{row.same_first:.0f}", f"{row.same_inliers:.0f}", str(row.greatest_difference)]
        lines.append(cells)
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("--model", default="sift-vlad", help="model with local maps of 24 x 24 cells")
    parser.add_argument("--queries", type=int, default=60)
    parser.add_argument("--rerank", type=int, default=10)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--cache", type=Path, help="cache features of the database here")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of the results")
    arguments = parser.parse_args()
    extractor = load_extractor(arguments.model)
    dataset = read_places(arguments.data, protocol=Protocol()).limited(arguments.queries)
    with tempfile.TemporaryDirectory(prefix="vpr-dhe-head-") as folder:
        index = FeatureCache(arguments.cache or Path(folder)).index(dataset.database, extractor)
        pairs = candidates_of(dataset, index, extractor, arguments.rerank)
        head = fitted_head(pairs)
        turns = timed(head, pairs[:_TIMED_CANDIDATES], arguments.repeats)
        verifiers = {one: Verifier(DheEstimator(head, precision=one)) for one in turns}
        settings = Settings(ranks=_RANKS, rerank=arguments.rerank)
        result = evaluate_dataset(dataset, index, extractor, verifiers, settings)
    baseline_ms = median(turns["fp32"])
    rows = [compared(precision, ms, baseline_ms, result) for precision, ms in turns.items()]
    summary = (
        f"{result.dataset.name}, {arguments.model}, queries {arguments.queries}, candidates {arguments.rerank} each"
    )
    print(table := f"{summary}; the last layer is fitted to {len(pairs)} of them\n\n{markdown(rows)}")
    arguments.out.mkdir(parents=True, exist_ok=True)
    (arguments.out / "dhe_head.md").write_text(f"{table}\n")
    document = {"data": summary, "fitted_to": len(pairs), "rows": [asdict(row) for row in rows]}
    write_result(arguments.out / "dhe_head.json", "dhe_head", document)


if __name__ == "__main__":
    main()
