"""R@1 of `magsac`, `poselib` and the heads of models, each compared with `magsac` ranked by evidence.

    OMP_NUM_THREADS=1 python benchmarks/verifiers.py FOLDER --frame-tolerance thumbs_gardens_point=2

re-ranks the first 100 candidates of all queries on the place data sets of a folder and on the held-out scenes of
`splits.toml`. Gains are paired, with standard errors over places; milliseconds are medians per re-ranked
candidate on the largest set, of which a coarse pass leaves 16 to verify. Writes `benchmarks/results/verifiers.md`.
"""

import argparse
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from accuracy import measure, verifiers_for
from data_sets import add_tolerances
from learned_ranking import measured_sets
from measuring import RESULTS, folder_for, table
from significance import gain_cells, hits_of

from vpr_dhe.datasets import PlaceDataset
from vpr_dhe.evaluation.place_evaluation import EvaluationResult, MethodResult
from vpr_dhe.features.extractor import load_extractor
from vpr_dhe.models.names import CCT_OFFLINE, LITE_VLAD, SIFT_VLAD

MODELS = (LITE_VLAD, SIFT_VLAD, CCT_OFFLINE)
RERANK = 100


class Row(NamedTuple):
    """A way of ranking, measured on one set."""

    name: str
    result: EvaluationResult
    method: MethodResult


def rows_of(dataset: PlaceDataset, model: str, cache: Path) -> Iterator[Row]:
    """Retrieval, `magsac` by inliers alone, and all verifiers by evidence."""
    verifiers = [*verifiers_for(load_extractor(model)), "poselib"]
    (by_inliers,) = measure([dataset], model, cache, RERANK, verifiers=["magsac"], rank_by="inliers")
    (by_evidence,) = measure([dataset], model, cache, RERANK, verifiers=verifiers, rank_by="evidence")
    yield Row("retrieval", by_evidence, by_evidence.methods[0])
    yield Row("`magsac`, inliers", by_inliers, by_inliers.verifiers[0])
    for method in by_evidence.verifiers:
        yield Row(f"`{method.name}`, evidence", by_evidence, method)


def report(model: str, sets: Sequence[Sequence[Row]]) -> Iterator[list[str]]:
    """One line for each way of ranking, over all sets."""
    for of_all in zip(*sets, strict=True):
        pairs = list[tuple[np.ndarray, np.ndarray, PlaceDataset]]()
        for row, others in zip(of_all, sets, strict=True):
            (base,) = (one for one in others if one.name == "`magsac`, evidence")
            dataset = row.result.dataset
            found, before = (hits_of(one.method.predictions, dataset, 1) for one in (row, base))
            pairs.append((found, before, dataset))
        largest = max(of_all, key=lambda row: len(row.result.dataset.queries.records))
        verified = largest.method in largest.result.verifiers
        cost = f"{largest.method.median_ms / RERANK:.2f}" if verified else ""
        yield [f"`{model}`", of_all[0].name, *gain_cells(pairs), cost]


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--models", nargs="+", default=MODELS)
    add_tolerances(parser)
    parser.add_argument("--cache", type=Path, help="folder of features, kept between runs")
    options = parser.parse_args()
    datasets = [*measured_sets(options.folder, dict(options.frame_tolerance))]
    header = ["model", "ranked by", *(one.name.removesuffix(", held-out scenes") for one in datasets)]
    lines = list[list[str]]()
    with folder_for(options.cache) as cache:
        for model in options.models:
            lines += report(model, [[*rows_of(dataset, model, cache)] for dataset in datasets])
            text = table([*header, "mean gain", "ms per re-ranked candidate"], lines)
            print(text, flush=True)
            (RESULTS / "verifiers.md").write_text(f"{text}\n")


if __name__ == "__main__":
    main()
