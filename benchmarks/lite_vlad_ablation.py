"""R@1 gained by each step of the recipe of `lite-vlad`, by the models of `datasets/lite_vlad_steps.py`.

    python datasets/lite_vlad_steps.py WEIGHTS DATA --out STEPS
    python benchmarks/lite_vlad_ablation.py ../shared/data STEPS --frame-tolerance thumbs_gardens_point=2

Each cell has R@1 of retrieval by vectors as extracted, by vectors adapted to the map (where the map finds that this
helps), and re-ranked by `magsac`. Gains are of the mean over all data sets, against `lite-vlad`, with their standard
error over places. Writes `benchmarks/results/lite_vlad_ablation.md` and `lite_vlad_ablation.json`.
"""

import argparse
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import fmean

import numpy as np
from accuracy import measure
from data_sets import add_tolerances, all_data_sets
from measuring import RESULTS, folder_for, table, write_result
from significance import gain, hits_of

from vpr_dhe.evaluation.place_evaluation import EvaluationResult
from vpr_dhe.models.names import LITE_VLAD

VERIFIER = "magsac"
RANKS = (1,)


@dataclass(frozen=True)
class Cell:
    """R@1 in percent of one model on one data set, by method; gains in points and their errors against `lite-vlad`."""

    model: str
    dataset: str
    recall: Mapping[str, float]
    gains: Mapping[str, tuple[float, float]]


def hits_by_method(result: EvaluationResult) -> dict[str, np.ndarray]:
    """Hits of each query by each method of the table; where nothing was adapted, vectors are as extracted."""
    methods = {
        "extracted": result.extracted or result.retrieval,
        "adapted": result.retrieval,
        VERIFIER: next(method for method in result.verifiers if method.name == VERIFIER),
    }
    return {name: hits_of(method.predictions, result.dataset, 1) for name, method in methods.items()}


def cells_of(results: Sequence[EvaluationResult]) -> Iterator[Cell]:
    """Compare the results of several models on one data set with those of `lite-vlad`."""
    reference = hits_by_method(next(result for result in results if result.model == LITE_VLAD))
    for result in results:
        dataset, hits = result.dataset, hits_by_method(result)
        gains = {name: gain(hits[name], found, dataset) for name, found in reference.items()}
        recall = {name: 100 * float(found.mean()) for name, found in hits.items()}
        yield Cell(Path(result.model).stem, f"{dataset.name}, {dataset.protocol}", recall, gains)


def markdown(cells: Sequence[Cell]) -> str:
    """Format one row per model and one column per data set."""
    models, datasets = (dict.fromkeys(getattr(cell, name) for cell in cells) for name in ("model", "dataset"))
    found = {(cell.model, cell.dataset): cell for cell in cells}
    rows = []
    for model in models:
        row = [found[model, dataset] for dataset in datasets]
        recall = [", ".join(f"{value:.1f}" for value in cell.recall.values()) for cell in row]
        means = [mean_gain([cell.gains[name] for cell in row]) for name in row[0].gains]
        rows.append([f"`{model}`", *recall, *("" if model == LITE_VLAD else mean for mean in means)])
    names = [f"{name}, mean" for name in cells[0].gains]
    return table(("model", *datasets, *names), rows)


def mean_gain(gains: Sequence[tuple[float, float]]) -> str:
    """Mean of the gains on several data sets, with its error."""
    points, errors = zip(*gains, strict=True)
    return f"{fmean(points):+.1f} ± {math.hypot(*errors) / len(errors):.1f}"


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folder", type=Path, help="folder of the data sets")
    parser.add_argument("steps", type=Path, help="folder of the models")
    add_tolerances(parser)
    parser.add_argument("--only", default="", help="only data sets whose name contains this")
    parser.add_argument("--cache", type=Path, help="cache features here")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of the results")
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    models = [LITE_VLAD, *map(str, sorted(arguments.steps.glob("*.safetensors")))]
    cells: list[Cell] = []
    with folder_for(arguments.cache) as cache:
        tolerances = dict(arguments.frame_tolerance)
        for protocols in all_data_sets(arguments.folder, tolerances, cache / "towns", only=arguments.only):
            # One protocol each, so that no data set counts twice in the mean.
            runs = [measure(protocols[:1], model, cache, 100, RANKS, verifiers=[VERIFIER]) for model in models]
            cells += cells_of([next(run) for run in runs])
            (arguments.out / "lite_vlad_ablation.md").write_text(f"{markdown(cells)}\n")
            print(markdown(cells), flush=True)
            write_result(
                arguments.out / "lite_vlad_ablation.json", "lite_vlad_ablation", {"cells": list(map(asdict, cells))}
            )


if __name__ == "__main__":
    main()
