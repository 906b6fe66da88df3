"""Calibration of probabilities, and precision and recall by them, where half of the places are unknown.

    python benchmarks/calibration.py DATA

takes a place data set with positions in metres, and removes the images of half of its blocks of 100 x 100 m, drawn by
a seed, from its index. Queries west and east of the median easting are the two halves; those within 25 m of it are left
out, so that no place is in both. Probabilities of each half come from a calibration on the other:

- `logistic` and `isotonic`: fitted on the other half's queries, as `vpr-dhe calibrate INDEX --data` does;
- `own images`: logistic, fitted on warped views of indexed images of the other half, as `vpr-dhe calibrate INDEX`;
- uncalibrated: the similarity, clipped at 0, and the inliers divided by their maximum in the other half.

Writes `benchmarks/results/calibration.md` and `calibration.json`.
"""

import argparse
import shutil
import tempfile
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median

import numpy as np
from measuring import RESULTS, folder_for, table, write_result

from vpr_dhe.datasets import PlaceDataset, read_places
from vpr_dhe.errors import DatasetError
from vpr_dhe.evaluation.calibration.examples import run_queries
from vpr_dhe.evaluation.calibration.fitting import Assumptions, Example, Method, fit
from vpr_dhe.evaluation.calibration.labelled_queries import LabelledQuery, labelled_queries
from vpr_dhe.evaluation.calibration.metrics import brier_score, expected_calibration_error
from vpr_dhe.evaluation.calibration.warped_queries import warped_queries
from vpr_dhe.evaluation.feature_cache import FeatureCache
from vpr_dhe.evaluation.precision_recall import precision_recall
from vpr_dhe.features.base import Extractor
from vpr_dhe.features.extractor import load_extractor
from vpr_dhe.geography.distance import RADIUS_M
from vpr_dhe.index.place_index import PlaceIndex
from vpr_dhe.localization.calibration.features import CalibrationFeatures
from vpr_dhe.localization.calibration.probability import Conditions
from vpr_dhe.localization.database import PinnedIndex
from vpr_dhe.records import ImageRecord, MetricPosition
from vpr_dhe.verification.build import build_verifier
from vpr_dhe.verification.estimators.resources import Resources
from vpr_dhe.verification.names import NO_VERIFIER

BLOCK_M = 100.0
GAP_M = 2 * RADIUS_M
VERIFIERS = (NO_VERIFIER, "magsac")
_SURE = 0.9
Judge = Callable[[CalibrationFeatures], float]
"""Confidence in [0, 1] of a best match."""


@dataclass(frozen=True)
class Row:
    """Scores of one method's confidences; areas and recall in percent."""

    verifier: str
    method: str
    area_under_precision_recall: float
    recall_at_full_precision: float
    expected_calibration_error: float
    brier_score: float
    answered_when_sure: float
    right_when_sure: float | None


@dataclass(frozen=True)
class Half:
    """Examples of one side of the town: its queries, and warped views of its indexed images."""

    real: tuple[Example, ...]
    own: tuple[Example, ...]

    @property
    def natural(self) -> list[Example]:
        """Examples of queries against all candidates, without those whose place was removed from the candidates."""
        return [one for one in self.real if one.place_known or not one.shown_by]


def metres(record: ImageRecord) -> tuple[float, float]:
    """Return the position of an image in metres."""
    if not isinstance(record.position, MetricPosition):
        raise DatasetError(f"{record.path} has no position in metres; only data sets with UTM positions can be split")
    return record.position.x_m, record.position.y_m


def without_half(index: PlaceIndex, folder: Path, seed: int) -> PlaceIndex:
    """Copy an index without the images of half of the blocks."""
    shutil.copytree(index.folder, folder)
    copy = PlaceIndex.open(folder)
    blocks = [tuple(int(part // BLOCK_M) for part in metres(copy.image(int(id)))) for id in copy.ids]
    names = sorted(set(blocks))
    gone = {names[number] for number in np.random.default_rng(seed).permutation(len(names))[: len(names) // 2]}
    copy.remove([int(id) for id, block in zip(copy.ids, blocks, strict=True) if block in gone])
    return copy


def sides(dataset: PlaceDataset) -> tuple[Callable[[ImageRecord], bool], Callable[[ImageRecord], bool]]:
    """Return predicates of images in the western and in the eastern half."""
    border_m = median(metres(record)[0] for record in (*dataset.database.records, *dataset.queries.records))
    return lambda one: metres(one)[0] < border_m - GAP_M / 2, lambda one: metres(one)[0] > border_m + GAP_M / 2


def examples_of(
    queries: Sequence[tuple[LabelledQuery, ImageRecord]],
    own: Sequence[tuple[LabelledQuery, ImageRecord]],
    inside: Callable[[ImageRecord], bool],
    database: PinnedIndex,
    extractor: Extractor,
    rerank: int,
) -> Half:
    """Localize the queries and the warped views of one side."""

    def examples(labelled: Sequence[tuple[LabelledQuery, ImageRecord]]) -> tuple[Example, ...]:
        chosen = [query for query, record in labelled if inside(record)]
        return run_queries(chosen, database, extractor, rerank=rerank, radius_m=RADIUS_M).examples

    return Half(examples(queries), examples(own))


def judges(verifier: str, learned_from: Half, conditions: Conditions, images: int) -> dict[str, Judge]:
    """Return each method's confidence of a match, fitted on one half."""
    max_score = max(one.features.score for one in learned_from.natural)
    uncalibrated: dict[str, Judge] = {"similarity": lambda features: min(1.0, max(0.0, features.similarity))}
    if verifier != NO_VERIFIER:
        uncalibrated["inliers"] = lambda features: min(1.0, features.score / max_score)
    fitted = {
        name: fit(examples, Assumptions(RADIUS_M, method=method), conditions, images).probability
        for name, examples, method in (
            ("logistic", learned_from.real, Method.logistic),
            ("isotonic", learned_from.real, Method.isotonic),
            ("own images", learned_from.own, Method.logistic),
        )
    }
    return uncalibrated | fitted


def rows_of(verifier: str, halves: Sequence[Half], conditions: Conditions, images: int) -> list[Row]:
    """Score both halves together, each by confidences fitted on the other."""
    judged: dict[str, list[float]] = {}
    tested = [example for half in halves for example in half.natural]
    for half, other in zip(halves, reversed(halves), strict=True):
        for name, judge in judges(verifier, other, conditions, images).items():
            judged.setdefault(name, []).extend(judge(example.features) for example in half.natural)
    return [measured(verifier, name, np.array(numbers), tested) for name, numbers in judged.items()]


def measured(verifier: str, name: str, numbers: np.ndarray, tested: Sequence[Example]) -> Row:
    """Compute all scores of one method."""
    right = np.array([example.right for example in tested])
    answerable = sum(example.place_known for example in tested)
    curve = precision_recall(numbers.tolist(), right.tolist(), answerable)
    assert curve is not None, "there are queries with a positive"
    sure = numbers >= _SURE
    return Row(
        verifier,
        name,
        curve.area,
        curve.recall_at_full_precision,
        expected_calibration_error(numbers, right),
        brier_score(numbers, right),
        100.0 * float(sure.mean()),
        100.0 * float(right[sure].mean()) if sure.any() else None,
    )


def markdown(rows: Sequence[Row]) -> str:
    """Format all methods as one Markdown table."""
    header = ["verifier", "number", "AUC-PR", "R@100%P", "ECE", "Brier", f"answered at {_SURE}", "of these right"]
    lines = [
        [
            row.verifier,
            row.method,
            f"{row.area_under_precision_recall:.1f}",
            f"{row.recall_at_full_precision:.1f}",
            f"{row.expected_calibration_error:.3f}",
            f"{row.brier_score:.3f}",
            f"{row.answered_when_sure:.1f} %",
            "-" if row.right_when_sure is None else f"{row.right_when_sure:.1f} %",
        ]
        for row in rows
    ]
    return table(header, lines)


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("--model", default="sift-vlad")
    parser.add_argument("--rerank", type=int, default=20, help="number of candidates to verify per query")
    parser.add_argument("--queries-limit", type=int, help="maximum number of queries, evenly spread [all]")
    parser.add_argument("--own-images", type=int, default=200, help="number of warped views")
    parser.add_argument("--seed", type=int, default=0, help="seed of the unknown blocks")
    parser.add_argument("--cache", type=Path, help="cache features of databases here")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of the results")
    arguments = parser.parse_args()
    dataset = read_places(arguments.data)
    dataset = dataset.limited(arguments.queries_limit) if arguments.queries_limit else dataset
    extractor = load_extractor(arguments.model)
    rows: list[Row] = []
    with ExitStack() as stack:
        cache = stack.enter_context(folder_for(arguments.cache))
        temporary = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="vpr-dhe-calibration-")))
        whole = FeatureCache(cache).index(dataset.database, extractor)
        index = without_half(whole, temporary / "index", arguments.seed)
        queries = list(zip(labelled_queries(dataset, index), dataset.queries.records, strict=True))
        views = warped_queries(index, arguments.own_images, RADIUS_M)
        own = [(view, index.image(id)) for view in views if (id := index.find(view.name)) is not None]
        for verifier in VERIFIERS:
            database = PinnedIndex(index.snapshot, build_verifier(verifier, Resources(extractor)))
            halves = [examples_of(queries, own, side, database, extractor, arguments.rerank) for side in sides(dataset)]
            conditions = Conditions(extractor.spec.fingerprint, verifier, arguments.rerank)
            rows += rows_of(verifier, halves, conditions, len(index))
            print(markdown(rows), end="\n\n", flush=True)
        tested = [example for half in halves for example in half.natural]
    arguments.out.mkdir(parents=True, exist_ok=True)
    (arguments.out / "calibration.md").write_text(f"{markdown(rows)}\n")
    document = {
        "dataset": dataset.name,
        "protocol": dataset.protocol,
        "model": arguments.model,
        "rerank": arguments.rerank,
        "seed": arguments.seed,
        "num_database": len(dataset.database.records),
        "num_database_known": len(index),
        "num_queries": len(tested),
        "num_queries_with_known_place": sum(example.place_known for example in tested),
        "num_calibrated_on": [len(half.real) for half in halves],
        "num_calibrated_on_own_images": [len(half.own) for half in halves],
        "rows": [asdict(row) for row in rows],
    }
    write_result(arguments.out / "calibration.json", "calibration", document)


if __name__ == "__main__":
    main()
