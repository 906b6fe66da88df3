"""Accuracy of models and verifiers on all data sets of a folder, as `vpr-dhe evaluate` measures by default.

    python benchmarks/accuracy.py FOLDER --frame-tolerance NAME=2 --pairs magsac poselib

finds all place data sets (and, with --pairs, sets of image pairs) in a folder and its subfolders, and the held-out
scenes of `splits.toml` if it holds their images. Each model but the first is paired with the first (`--baseline`), with
standard errors over places. Writes `benchmarks/results/accuracy.md` and `accuracy.json`. Features are cached in
`--cache` between runs.
"""

import argparse
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, get_args

from data_sets import add_tolerances, all_data_sets, find
from measuring import RESULTS, folder_for, table, write_result
from significance import gain, hits_of

from vpr_dhe.datasets import PlaceDataset
from vpr_dhe.datasets.pairs import read_pairs, recognise_pairs
from vpr_dhe.errors import VerifierError
from vpr_dhe.evaluation.feature_cache import FeatureCache
from vpr_dhe.evaluation.pair_evaluation import evaluate_pair_set
from vpr_dhe.evaluation.place_evaluation import EvaluationResult, MethodResult, Settings, evaluate_dataset
from vpr_dhe.evaluation.provenance import provenance
from vpr_dhe.features.base import Extractor
from vpr_dhe.features.extractor import load_extractor
from vpr_dhe.index.map_adaptation import verified_pairs
from vpr_dhe.models.names import BUNDLED, SIFT_VLAD
from vpr_dhe.report.tables.evaluation import evaluation_document, evaluation_table
from vpr_dhe.report.tables.pairs import alignment_document, alignment_table
from vpr_dhe.runtime.choices import ExtractorPrecision, RankBy, default_adapt, default_rank_by
from vpr_dhe.verification.alignment import build_aligner
from vpr_dhe.verification.build import build_verifiers
from vpr_dhe.verification.estimators.registry import ESTIMATORS, Needs
from vpr_dhe.verification.estimators.resources import Resources

HEADER = ("model", "method", "R@1", "R@5", "R@10", "R@20", "R@100%P", "R@1 against", "ms/query", "ms/candidate")
RANKS = (1, 5, 10, 20)


def verifiers_for(extractor: Extractor) -> list[str]:
    """List `magsac`, and the verifiers whose head this model has."""
    names = ["magsac"]
    for name, spec in ESTIMATORS.items():
        if spec.needs is Needs.head:
            try:
                spec.build(name, Resources(extractor))
            except VerifierError:
                continue
            names.append(name)
    return names


def measure(
    protocols: Sequence[PlaceDataset],
    model: str,
    cache: Path,
    rerank: int,
    ranks: tuple[int, ...] = RANKS,
    *,
    precision: ExtractorPrecision = "fp32",
    verifiers: Sequence[str] | None = None,
    rank_by: RankBy | None = None,
) -> Iterator[EvaluationResult]:
    """Evaluate one model on one set of images by each protocol, adapted and ranked as an index is by default.

    `verifiers` are by default those of `verifiers_for`, `rank_by` that of an index.
    """
    extractor = load_extractor(model, precision=precision)
    published = extractor.model_file.published
    settings = Settings(ranks, rerank, rank_by=rank_by or default_rank_by(published=published))
    features = FeatureCache(cache)
    index = features.index(protocols[0].database, extractor)
    index.unadapt()
    if default_adapt(published=published) == "auto":
        index.adapt(verified_pairs)
    queries = list(features.queries(protocols[0].queries, extractor))
    built = build_verifiers(verifiers or verifiers_for(extractor), Resources(extractor))
    for dataset in protocols:
        yield evaluate_dataset(dataset, index, extractor, built, settings, queries=queries)


def markdown(results: Sequence[EvaluationResult]) -> str:
    """Format one Markdown table per data set and protocol; the first model of each is the baseline of the others."""
    groups: dict[str, list[EvaluationResult]] = {}
    for result in results:
        groups.setdefault(f"{result.dataset.name}, {result.dataset.protocol}", []).append(result)
    return "\n\n".join(f"{name}:\n\n{_table(group)}" for name, group in groups.items())


def _table(results: Sequence[EvaluationResult]) -> str:
    lines = [_cells(result, method, results[0]) for result in results for method in result.methods]
    return table(HEADER, lines)


def _cells(result: EvaluationResult, method: MethodResult, baseline: EvaluationResult) -> list[str]:
    scores = method.scores
    assert scores is not None
    assert scores.precision_recall is not None
    verified = method in result.verifiers
    return [
        f"`{result.model}`",
        f"`{method.name}`, top {result.settings.rerank}" if verified else method.name,
        *(f"{scores.recall[rank]:.1f}" for rank in RANKS),
        f"{scores.precision_recall.recall_at_full_precision:.1f}",
        "" if result is baseline else _gain(method, baseline),
        f"{result.total_ms(method):.0f}",
        f"{method.median_ms / result.settings.rerank:.1f}" if verified else "",
    ]


def _gain(method: MethodResult, baseline: EvaluationResult) -> str:
    """Gain over the same method of the baseline; empty if it was not measured there."""
    other = next((one for one in baseline.methods if one.name == method.name), None)
    if other is None:
        return ""
    second, first = (hits_of(one.predictions, baseline.dataset, 1) for one in (method, other))
    points, error = gain(second, first, baseline.dataset)
    return f"{points:+.1f} ± {error:.1f}"


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
    parser.add_argument("--baseline", default=SIFT_VLAD, help="model that the others are compared with")
    add_tolerances(parser)
    parser.add_argument(
        "--pairs", nargs="*", default=[], metavar="METHOD", help="also evaluate these methods on image pairs"
    )
    parser.add_argument("--rerank", type=int, default=Settings.rerank, help="number of candidates to verify per query")
    parser.add_argument(
        "--precision", choices=get_args(ExtractorPrecision), default="fp32", help="precision of networks [fp32]"
    )
    parser.add_argument("--queries", type=int, help="maximum number of queries per data set, evenly spread [all]")
    parser.add_argument("--only", default="", help="only data sets whose name contains this")
    parser.add_argument("--cache", type=Path, help="cache features here")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of the results")
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    results: list[EvaluationResult] = []
    pairs: list[dict[str, Any]] = []
    models = sorted(arguments.models, key=lambda model: model != arguments.baseline)
    with folder_for(arguments.cache) as cache:
        for protocols in all_data_sets(
            arguments.folder,
            dict(arguments.frame_tolerance),
            cache / "towns",
            only=arguments.only,
            queries=arguments.queries,
        ):
            for model in models:
                for result in measure(protocols, model, cache, arguments.rerank, precision=arguments.precision):
                    results.append(result)
                    print(evaluation_table(result), end="\n\n", flush=True)
                write(arguments.out, results, pairs)
    for text, document in measure_pairs(arguments.folder, arguments.pairs) if arguments.pairs else ():
        print(text, end="\n\n", flush=True)
        pairs.append(document)
        write(arguments.out, results, pairs)


if __name__ == "__main__":
    main()
