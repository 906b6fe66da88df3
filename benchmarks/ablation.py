"""Gains of adaptation and of ranking by evidence, step by step, with paired errors over places.

    python benchmarks/ablation.py ../shared/data --models sift-vlad cct-offline --cache CACHE

Retrieval by vectors as extracted, centred, whitened, whitened and freed of hubs, each forced, and as the map decides
(`auto`); then re-ranking of the first and the last by each verifier, by inliers and by evidence. Data sets are the
place data sets of the folder and those of `splits.toml`. Differences are to vectors as extracted or, for evidence, to
the better of retrieval and inliers. Writes `ablation.md` and `ablation.json` to `benchmarks/results`.
"""

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
from accuracy import RESULTS, find_places, folder_for, tolerance, verifiers_for
from jaxtyping import Float64, Int64
from measuring import write_result
from significance import place_numbers, standard_error
from splits import read_splits

from vpr_dhe.datasets import PlaceDataset
from vpr_dhe.evaluation.feature_cache import FeatureCache
from vpr_dhe.evaluation.runs import RETRIEVAL, MethodResult, Settings, evaluate_dataset
from vpr_dhe.features.base import Extractor
from vpr_dhe.features.extractor import load_extractor
from vpr_dhe.index.adaptation.decision import HUB_WEIGHT
from vpr_dhe.index.adaptation.fitting import Fit, learned, pairs_by, source_of
from vpr_dhe.index.adaptation.map_images import MapImages
from vpr_dhe.index.adaptation.report import AdaptationReport
from vpr_dhe.index.adaptation.writing import MapVectors, records_of
from vpr_dhe.index.place_index import PlaceIndex
from vpr_dhe.localization.map_adaptation import verified_pairs
from vpr_dhe.runtime.choices import RankBy
from vpr_dhe.verification.build import build_verifiers
from vpr_dhe.verification.estimators.registry import Resources

RANKS = (1, 5, 10)
ORDERS: tuple[RankBy, ...] = ("inliers", "evidence")
FORCED = {"centred": {"centring"}, "whitened": {"whitening"}, "whitened, hubs": {"whitening", "hubs"}}
EXTRACTED, AUTO = "extracted", "auto"


@dataclass(frozen=True)
class Row:
    """Recall of one variant of one model on one data set; `points` and `error` are of R@1, paired with `baseline`."""

    dataset: str
    model: str
    vectors: str
    method: str
    recall: dict[int, float]
    baseline: str = ""
    points: float = 0.0
    error: float = 0.0


class Ablation:
    """Variants of one model on one data set; `others` are further protocols of the same images."""

    def __init__(
        self,
        dataset: PlaceDataset,
        model: str,
        cache: Path,
        others: Sequence[PlaceDataset] = (),
        verifiers: Sequence[str] | None = None,
    ) -> None:
        self.extractor: Extractor = load_extractor(model)
        self.protocols, self.model = [dataset, *others], model
        features = FeatureCache(cache)
        self.index = features.index(dataset.database, self.extractor)
        self.queries = list(features.queries(dataset.queries, self.extractor))
        self.verifiers = verifiers or verifiers_for(self.extractor)
        self.rows: list[Row] = []

    def run(self) -> list[Row]:
        """Measure all variants."""
        resources = Resources(self.extractor)
        self.index.unadapt()
        retrieval = {EXTRACTED: self.measure(None)[RETRIEVAL]}
        reranked = self.reranked(EXTRACTED, resources, retrieval[EXTRACTED])
        for name, steps in FORCED.items():
            if force(self.index, steps):
                self.retrieved(name, retrieval)
        self.index.adapt(verified_pairs)
        steps = self.index.manifest.adaptation.report.steps if self.index.manifest.adaptation else ()
        name = f"{AUTO} ({', '.join(steps) or 'nothing'})"
        self.retrieved(name, retrieval)
        if steps:
            self.reranked(name, resources, retrieval[name], reranked)
        return self.rows

    def measure(self, verifiers: Resources | None, rank_by: RankBy = "inliers") -> dict[str, MethodResult]:
        """Evaluate the index as it is."""
        built = {} if verifiers is None else build_verifiers(self.verifiers, verifiers)
        settings = Settings(ranks=RANKS, rank_by=rank_by)
        result = evaluate_dataset(self.protocols[0], self.index, self.extractor, built, settings, queries=self.queries)
        return {method.name: method for method in result.methods}

    def retrieved(self, name: str, known: dict[str, MethodResult]) -> None:
        """Measure retrieval by the index as it is, against vectors as extracted."""
        known[name] = self.measure(None)[RETRIEVAL]
        self.add(name, RETRIEVAL, known[name], {EXTRACTED: known[EXTRACTED]})

    def reranked(
        self,
        name: str,
        resources: Resources,
        retrieval: MethodResult,
        extracted: dict[str, MethodResult] | None = None,
    ) -> dict[str, MethodResult]:
        """Measure verifiers by inliers and by evidence; the latter against the better of inliers and retrieval."""
        if extracted is None:
            self.add(name, RETRIEVAL, retrieval, {})
        found: dict[str, MethodResult] = {}
        for order in ORDERS:
            measured = self.measure(resources, order)
            for method, result in measured.items():
                if method in (RETRIEVAL, EXTRACTED):
                    continue
                found[f"{method}, {order}"] = result
                alternatives = (
                    {} if order == "inliers" else {RETRIEVAL: retrieval, "inliers": found[f"{method}, inliers"]}
                )
                if extracted is not None:
                    alternatives = {EXTRACTED: extracted[f"{method}, {order}"]}
                self.add(name, f"{method}, {order}", result, alternatives)
        return found

    def add(self, vectors: str, method: str, found: MethodResult, alternatives: dict[str, MethodResult]) -> None:
        """Add a row per protocol, paired with the best of the alternatives."""
        for dataset in self.protocols:
            hits = {rank: hits_of(found, dataset, rank) for rank in RANKS}
            recall = {rank: 100 * float(values.mean()) for rank, values in hits.items()}
            row = Row(f"{dataset.name}, {dataset.protocol}", self.model, vectors, method, recall)
            scored = {name: hits_of(other, dataset, 1) for name, other in alternatives.items()}
            if scored:
                best = max(scored, key=lambda name: scored[name].mean())
                gains = hits[1] - scored[best]
                error = standard_error(gains, places(dataset))
                row = replace(row, baseline=best, points=100 * float(gains.mean()), error=100 * error)
            self.rows.append(row)
            print(line(row), flush=True)


def hits_of(method: MethodResult, dataset: PlaceDataset, rank: int) -> Float64[np.ndarray, " queries"]:
    """Whether each query has a right answer among the first ones."""
    assert dataset.positives is not None
    pairs = zip(method.predictions, dataset.positives, strict=True)
    return np.array([np.isin([one.row for one in found[:rank]], right).any() for found, right in pairs], np.float64)


def places(dataset: PlaceDataset) -> Int64[np.ndarray, " queries"]:
    """Number of each query's place."""
    return place_numbers([record.path for record in dataset.queries.records])


def force(index: PlaceIndex, steps: set[str]) -> bool:
    """Adapt by some steps, whatever the map says; False if it has no pairs, or no positions for hubs."""
    with index.writing() as writer:
        snapshot = writer.snapshot
        vectors, images = MapVectors(snapshot), MapImages.of(records_of(snapshot, snapshot.ids))
        verified = None if images.have_positions else verified_pairs(snapshot)
        source = source_of(images, verified)
        if source is None or ("hubs" in steps and not images.have_positions):
            return False
        pairs = pairs_by(source, images, verified)
        if not len(pairs):
            return False
        transform, count = learned(vectors, pairs, frozenset(steps))
        report = AdaptationReport(len(images), source, count)
        fit = Fit(transform, HUB_WEIGHT if "hubs" in steps else 0.0, report)
        writer.adapt(fit, vectors, images, lambda _kind, _count: None)
    return True


def line(row: Row) -> str:
    """Format a row of the table."""
    change = f"{row.points:+.1f} ± {row.error:.1f} ({row.baseline})" if row.baseline else ""
    recall = " | ".join(f"{value:.1f}" for value in row.recall.values())
    return f"| {row.dataset} | {row.model} | {row.vectors} | {row.method} | {recall} | {change} |"


def markdown(rows: Sequence[Row]) -> str:
    """Format all rows as a table."""
    header = ["data set", "model", "vectors", "method", *(f"R@{rank}" for rank in RANKS), "R@1 against"]
    return "\n".join([f"| {' | '.join(header)} |", "|---" * len(header) + "|", *map(line, rows)])


def datasets(folder: Path, tolerances: dict[str, int], towns: Path) -> Iterator[list[PlaceDataset]]:
    """Data sets, each with further protocols of the same images."""
    found = find_places(folder, tolerances)
    while found:
        first, *rest = found
        same = [one for one in rest if one.queries.folder == first.queries.folder]
        yield [first, *same]
        found = [one for one in rest if one not in same]
    for held_out in (True, False):
        for dataset in read_splits(folder, held_out=held_out, towns=towns):
            yield [dataset]


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--models", nargs="+", default=["sift-vlad", "cct-offline"])
    parser.add_argument("--verifiers", nargs="+", help="verifiers to re-rank by [magsac, poselib and a model's heads]")
    parser.add_argument("--frame-tolerance", nargs="*", type=tolerance, default=[], metavar="NAME=FRAMES")
    parser.add_argument("--queries", type=int, help="maximum number of queries per data set, evenly spread [all]")
    parser.add_argument("--only", help="only data sets whose name contains this")
    parser.add_argument("--cache", type=Path, help="cache features here")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of the results")
    arguments = parser.parse_args()
    rows: list[Row] = []
    with folder_for(arguments.cache) as cache:
        for dataset, *others in datasets(arguments.folder, dict(arguments.frame_tolerance), cache / "towns"):
            if arguments.only and arguments.only not in dataset.name:
                continue
            kept = [one.limited(arguments.queries) if arguments.queries else one for one in (dataset, *others)]
            for model in arguments.models:
                rows += Ablation(kept[0], model, cache, kept[1:], arguments.verifiers).run()
                (arguments.out / "ablation.md").write_text(f"{markdown(rows)}\n")
                write_result(arguments.out / "ablation.json", "ablation", {"rows": [asdict(row) for row in rows]})


if __name__ == "__main__":
    main()
