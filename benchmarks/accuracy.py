"""Accuracy of models and verifiers on all data sets in a folder.

    python benchmarks/accuracy.py FOLDER --frame-tolerance NAME=2 --pairs magsac poselib

finds all place data sets (and, with --pairs, sets of image pairs) in a folder and its subfolders, and writes
`benchmarks/results/accuracy.md` and `accuracy.json`. Features of databases are cached in `--cache` between runs.
"""

import argparse
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from measuring import write_result

from vpr_dhe.datasets import LAYOUTS, PlaceDataset, Protocol, read_places
from vpr_dhe.datasets.pairs import read_pairs, recognise_pairs
from vpr_dhe.errors import VerifierError, VprDheError
from vpr_dhe.evaluation.feature_cache import FeatureCache
from vpr_dhe.evaluation.pair_runs import evaluate_pair_set
from vpr_dhe.evaluation.provenance import provenance
from vpr_dhe.evaluation.runs import RETRIEVAL, EvaluationResult, Settings, evaluate_dataset
from vpr_dhe.features.base import Extractor
from vpr_dhe.features.extractor import load_extractor
from vpr_dhe.models.names import BUNDLED
from vpr_dhe.report.tables.evaluation import evaluation_document, evaluation_table
from vpr_dhe.report.tables.pairs import alignment_document, alignment_table
from vpr_dhe.verification.alignment import build_aligner
from vpr_dhe.verification.build import build_verifiers
from vpr_dhe.verification.estimators.registry import METHODS, Needs, Resources

RESULTS = Path(__file__).parent / "results"
VERIFIERS = ("magsac", "poselib")


def find(root: Path, recognises: Callable[[Path], bool], depth: int = 2) -> Iterator[Path]:
    """Find recognised folders, the folder itself or below it; folders within a recognised one belong to it."""
    if recognises(root):
        yield root
    elif depth:
        for folder in sorted(path for path in root.iterdir() if path.is_dir()):
            yield from find(folder, recognises, depth - 1)


def find_places(root: Path, tolerances: dict[str, int]) -> list[PlaceDataset]:
    """Read place data sets, each by its own protocol and, if headings are known, also by the strict one."""
    found = []
    for folder in find(root, lambda path: any(layout.recognises(path) for layout in LAYOUTS.values())):
        try:
            found.append(read_places(folder, protocol=Protocol(frame_tolerance=tolerances.get(folder.name))))
            if all(record.heading_deg is not None for record in found[-1].queries.records):
                found.append(read_places(folder, protocol=Protocol(heading_tolerance_deg=0.0)))
        except VprDheError as error:
            print(f"left out {folder}: {error}", file=sys.stderr)
    return found


def verifiers_for(extractor: Extractor) -> list[str]:
    """List two robust verifiers, and those whose head this model has."""
    names = list(VERIFIERS)
    for name, method in METHODS.items():
        if method.needs is Needs.head:
            try:
                method.build(Resources(extractor))
            except VerifierError:
                continue
            names.append(name)
    return names


def measure(dataset: PlaceDataset, model: str, cache: Path, settings: Settings) -> EvaluationResult:
    """Evaluate one model on one data set."""
    extractor = load_extractor(model)
    index = FeatureCache(cache).index(dataset.database, extractor)
    return evaluate_dataset(
        dataset, index, extractor, build_verifiers(verifiers_for(extractor), Resources(extractor)), settings
    )


def markdown(results: Sequence[EvaluationResult]) -> str:
    """Format all data sets as one Markdown table."""
    ranks = results[0].settings.ranks
    header = [
        "data set",
        "model",
        "method",
        *(f"R@{rank}" for rank in ranks),
        "mAP@20",
        "R@100%P",
        "ms/query",
        "ms/candidate",
    ]
    lines = [header, ["---"] * len(header)]
    for result in results:
        for method in result.methods:
            scores = method.scores
            if scores is None or scores.precision_recall is None:
                continue
            lines.append(
                [
                    f"{result.dataset.name}, {result.dataset.protocol}",
                    result.model,
                    method.name if method.name == RETRIEVAL else f"{method.name}, top {result.settings.rerank}",
                    *(f"{scores.recall[rank]:.1f}" for rank in ranks),
                    f"{scores.mean_average_precision[max(ranks)]:.1f}",
                    f"{scores.precision_recall.recall_at_full_precision:.1f}",
                    f"{result.total_ms(method):.0f}",
                    "" if method.name == RETRIEVAL else f"{method.median_ms / result.settings.rerank:.1f}",
                ]
            )
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def tolerance(text: str) -> tuple[str, int]:
    """Read `NAME=FRAMES`."""
    name, _, frames = text.partition("=")
    return name, int(frames)


@contextmanager
def folder_for(cache: Path | None) -> Iterator[Path]:
    """Yield the folder of a cache, or a temporary one."""
    if cache:
        yield cache
        return
    with tempfile.TemporaryDirectory(prefix="vpr-dhe-accuracy-") as folder:
        yield Path(folder)


def measure_pairs(root: Path, methods: Sequence[str]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Evaluate each set of image pairs, as a table and a document."""
    for folder in find(root, lambda path: recognise_pairs(path) is not None):
        result = evaluate_pair_set(read_pairs(folder), {name: build_aligner(name) for name in methods})
        yield alignment_table(result), alignment_document(result, provenance())


def write(out: Path, results: Sequence[EvaluationResult], pairs: Sequence[dict[str, Any]]) -> None:
    """Write the results so far."""
    if results:
        (out / "accuracy.md").write_text(f"{markdown(results)}\n")
    documents = [evaluation_document(result, provenance()) for result in results]
    write_result(out / "accuracy.json", "accuracy", {"places": documents, "pairs": list(pairs)})


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--models", nargs="+", default=list(BUNDLED), help="model names or files [all bundled ones]")
    parser.add_argument(
        "--frame-tolerance",
        nargs="*",
        type=tolerance,
        default=[],
        metavar="NAME=FRAMES",
        help="frame tolerance of a data set without positions",
    )
    parser.add_argument(
        "--pairs", nargs="*", default=[], metavar="METHOD", help="also evaluate these methods on image pairs"
    )
    parser.add_argument("--rerank", type=int, default=Settings.rerank, help="number of candidates to verify per query")
    parser.add_argument("--queries", type=int, help="maximum number of queries per data set, evenly spread [all]")
    parser.add_argument("--cache", type=Path, help="cache features of databases here")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of the results")
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    results: list[EvaluationResult] = []
    pairs: list[dict[str, Any]] = []
    with folder_for(arguments.cache) as cache:
        for dataset in find_places(arguments.folder, dict(arguments.frame_tolerance)):
            limited = dataset.limited(arguments.queries) if arguments.queries else dataset
            for model in arguments.models:
                results.append(measure(limited, model, cache, Settings(rerank=arguments.rerank)))
                print(evaluation_table(results[-1]), end="\n\n", flush=True)
                write(arguments.out, results, pairs)
    for table, document in measure_pairs(arguments.folder, arguments.pairs) if arguments.pairs else ():
        print(table, end="\n\n", flush=True)
        pairs.append(document)
        write(arguments.out, results, pairs)


if __name__ == "__main__":
    main()
