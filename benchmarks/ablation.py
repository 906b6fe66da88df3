"""Gains of adaptation and of ranking by evidence, step by step, with paired errors over places.

    python benchmarks/ablation.py ../shared/data --models sift-vlad cct-offline --cache CACHE

Retrieval by vectors as extracted, centred, whitened, whitened and freed of hubs, each forced, and as the map decides
(`auto`), each re-ranked by every verifier, by inliers and by evidence. Data sets are the place data sets of the folder
and the held-out scenes of `splits.toml`. Differences are to vectors as extracted; of evidence on vectors as extracted,
to the better of retrieval and inliers. Writes `ablation.md` and `ablation.json` to `benchmarks/results`.
"""

import argparse
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from accuracy import verifiers_for
from data_sets import add_tolerances, all_data_sets
from measuring import RESULTS, folder_for, write_result
from significance import gain, hits_of

from vpr_dhe.datasets import PlaceDataset
from vpr_dhe.evaluation.feature_cache import FeatureCache
from vpr_dhe.evaluation.place_evaluation import RETRIEVAL, MethodResult, Settings, evaluate_dataset
from vpr_dhe.features.base import Extractor
from vpr_dhe.features.extractor import load_extractor
from vpr_dhe.index.adaptation.cross_validation import HUB_WEIGHT
from vpr_dhe.index.adaptation.fitting import Fit, learned, pairs_by, source_of
from vpr_dhe.index.adaptation.map_images import MapImages
from vpr_dhe.index.adaptation.report import AdaptationReport
from vpr_dhe.index.adaptation_update import MapVectors, records_of
from vpr_dhe.index.map_adaptation import verified_pairs
from vpr_dhe.index.place_index import PlaceIndex
from vpr_dhe.records import Verification
from vpr_dhe.runtime.choices import RankBy
from vpr_dhe.verification.build import build_verifiers
from vpr_dhe.verification.estimators.base import View
from vpr_dhe.verification.estimators.resources import Resources
from vpr_dhe.verification.verifier import Verifier

RANKS = (1, 5, 10)
ORDERS: tuple[RankBy, ...] = ("inliers", "evidence")
NO_STEPS = frozenset[str]()
FORCED = {
    "centred": frozenset({"centring"}),
    "whitened": frozenset({"whitening"}),
    "whitened, hubs": frozenset({"whitening", "hubs"}),
}
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


class OnceVerified(Verifier):
    """Verifier that repeats the answers of its first pass over the same queries: both orders rank the same inliers."""

    def __init__(self, verifier: Verifier) -> None:
        super().__init__(verifier.estimator, verifier.inlier_threshold_px, shortlist_size=verifier.shortlist_size)
        self._answers: list[list[Verification]] = []
        self._passed = 0

    def rewind(self) -> None:
        """Go back to the first query."""
        self._passed = 0

    def verify(self, query: View, candidates: Sequence[View]) -> list[Verification]:
        """Verify at the first pass; repeat at later ones."""
        if self._passed == len(self._answers):
            self._answers.append(super().verify(query, candidates))
        self._passed += 1
        return self._answers[self._passed - 1]


Results = dict[str, MethodResult]


class Ablation:
    """Variants of one model on one data set; `others` are further protocols of the same images."""

    def __init__(
        self,
        dataset: PlaceDataset,
        model: str,
        cache: Path,
        others: Sequence[PlaceDataset] = (),
        verifiers: Sequence[str] | None = None,
        codec: str = "auto",
    ) -> None:
        self.extractor: Extractor = load_extractor(model)
        self.protocols, self.model = [dataset, *others], model
        features = FeatureCache(cache)
        self.index = features.index(dataset.database, self.extractor, codec=codec)
        self.queries = list(features.queries(dataset.queries, self.extractor))
        self.verifiers = verifiers or verifiers_for(self.extractor)
        self.rows: list[Row] = []

    def run(self) -> list[Row]:
        """Measure all variants."""
        self.index.unadapt()
        found: dict[frozenset[str], Results] = {NO_STEPS: self.measured()}
        self.add(EXTRACTED, found[NO_STEPS], None)
        for name, steps in FORCED.items():
            if force(self.index, steps):
                found[steps] = self.measured()
                self.add(name, found[steps], found[NO_STEPS])
        self.index.adapt(verified_pairs)
        adaptation = self.index.manifest.adaptation
        steps = frozenset(adaptation.report.steps if adaptation else ())
        # The same steps give the same transform, forced or chosen.
        chosen = found[steps] if steps in found else self.measured()
        self.add(f"{AUTO} ({', '.join(sorted(steps)) or 'nothing'})", chosen, found[NO_STEPS])
        return self.rows

    def measured(self) -> Results:
        """Evaluate the index as it is: retrieval, and each verifier by inliers and by evidence."""
        built = build_verifiers(self.verifiers, Resources(self.extractor))
        once = {name: OnceVerified(verifier) for name, verifier in built.items()}
        found: Results = {}
        for order in ORDERS:
            settings = Settings(ranks=RANKS, rank_by=order)
            result = evaluate_dataset(
                self.protocols[0], self.index, self.extractor, once, settings, queries=self.queries
            )
            found[RETRIEVAL] = result.retrieval
            found |= {f"{method.name}, {order}": method for method in result.verifiers}
            for verifier in once.values():
                verifier.rewind()
        return found

    def add(self, vectors: str, found: Results, extracted: Results | None) -> None:
        """Add the rows of one variant.

        Each is paired with the same method on vectors as extracted; there, evidence is paired with the better of
        retrieval and inliers.
        """
        for method, result in found.items():
            name, _, order = method.partition(", ")
            if extracted is not None:
                baselines = {EXTRACTED: extracted[method]}
            elif order == "evidence":
                baselines = {RETRIEVAL: found[RETRIEVAL], "inliers": found[f"{name}, inliers"]}
            else:
                baselines = {}
            self.rows += [self.row(vectors, method, result, baselines, dataset) for dataset in self.protocols]
            print(*map(line, self.rows[-len(self.protocols) :]), sep="\n", flush=True)

    def row(self, vectors: str, method: str, found: MethodResult, baselines: Results, dataset: PlaceDataset) -> Row:
        """One row by one protocol, paired with the best of the baselines."""
        hits = {rank: hits_of(found.predictions, dataset, rank) for rank in RANKS}
        recall = {rank: 100 * float(values.mean()) for rank, values in hits.items()}
        row = Row(f"{dataset.name}, {dataset.protocol}", self.model, vectors, method, recall)
        if not baselines:
            return row
        scored = {name: hits_of(other.predictions, dataset, 1) for name, other in baselines.items()}
        best = max(scored, key=lambda name: scored[name].mean())
        points, error = gain(hits[1], scored[best], dataset)
        return replace(row, baseline=best, points=points, error=error)


def force(index: PlaceIndex, steps: frozenset[str]) -> bool:
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
        transform, count = learned(vectors, pairs, steps)
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
    """Format all rows as one table per model and data set: vectors against methods, R@1 and its change."""
    groups = dict.fromkeys((row.model, row.dataset) for row in rows)
    return "\n\n".join(_table([row for row in rows if (row.model, row.dataset) == group]) for group in groups)


def _table(rows: Sequence[Row]) -> str:
    methods = list(dict.fromkeys(row.method for row in rows))
    cells = {(row.vectors, row.method): _cell(row) for row in rows}
    lines = [
        f"| {' | '.join([vectors, *(cells[vectors, method] for method in methods)])} |"
        for vectors in dict.fromkeys(row.vectors for row in rows)
    ]
    header = f"| vectors | {' | '.join(methods)} |\n{'|---' * (len(methods) + 1)}|"
    return "\n".join([f"`{rows[0].model}`, {rows[0].dataset}:", "", header, *lines])


def _cell(row: Row) -> str:
    recall = "/".join(f"{value:.1f}" for value in row.recall.values())
    return f"{recall} ({row.points:+.1f} ± {row.error:.1f})" if row.baseline else recall


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--models", nargs="+", default=["sift-vlad", "cct-offline"])
    parser.add_argument("--verifiers", nargs="+", help="verifiers to re-rank by [magsac and the model's heads]")
    parser.add_argument("--codec", default="auto", help="codec of local maps [auto]")
    add_tolerances(parser)
    parser.add_argument("--queries", type=int, help="maximum number of queries per data set, evenly spread [all]")
    parser.add_argument("--only", default="", help="only data sets whose name contains this")
    parser.add_argument("--cache", type=Path, help="cache features here")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of the results")
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    rows: list[Row] = []
    with folder_for(arguments.cache) as cache:
        found = all_data_sets(
            arguments.folder,
            dict(arguments.frame_tolerance),
            cache / "towns",
            only=arguments.only,
            queries=arguments.queries,
        )
        for dataset, *others in found:
            for model in arguments.models:
                rows += Ablation(dataset, model, cache, others, arguments.verifiers, arguments.codec).run()
                (arguments.out / "ablation.md").write_text(f"{markdown(rows)}\n")
                write_result(arguments.out / "ablation.json", "ablation", {"rows": [asdict(row) for row in rows]})


if __name__ == "__main__":
    main()
