"""Default calibrations of the package: make them from openly licensed images, and measure them on held-out ones.

    python benchmarks/default_calibration.py DATA --also PLACE_DATA_SET

DATA holds the images of `splits.toml`. Each query is asked with and without the images of its place among the
candidates, as `vpr-dhe calibrate INDEX --data` does: on generated towns, whose queries stand up to 3 or 12 m from a
database view, on frames of an office tower and on views of panoramas. Images of the latter two get positions, 25 m
apart where the protocol's tolerance ends, and those of the query's walk or panorama beyond it are never candidates:
many show the same things. Scenes of training are fitted on, held-out ones are measured, by each codec.

Two numbers are used, the inliers and their lead over the best match of another place. The similarity is left out: its
scale depends on the map, and on the adaptation to it.

Writes a file for each model and verifier into `vpr_dhe/localization/calibration/bundled`, and
`benchmarks/results/default_calibration.md` and `.json`.
"""

import argparse
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
from measuring import RESULTS, folder_for, table, write_result
from splits import TOWN, read_rules, read_split_of

from vpr_dhe.datasets import PlaceDataset, read_places
from vpr_dhe.datasets.base import PlaceSplit, Positives
from vpr_dhe.evaluation.calibration.examples import run_queries
from vpr_dhe.evaluation.calibration.fitting import Assumptions, Example, example_weights, fit
from vpr_dhe.evaluation.calibration.labelled_queries import labelled_queries
from vpr_dhe.evaluation.calibration.metrics import brier_score, expected_calibration_error
from vpr_dhe.evaluation.feature_cache import FeatureCache
from vpr_dhe.features.base import Extractor
from vpr_dhe.features.extractor import load_extractor
from vpr_dhe.geography.distance import RADIUS_M
from vpr_dhe.localization.calibration.default import DefaultCalibration, default_calibration
from vpr_dhe.localization.calibration.probability import Calibration, Conditions
from vpr_dhe.localization.candidate_maps import QueryImage
from vpr_dhe.localization.confidence import MIN_SURE
from vpr_dhe.localization.database import PinnedIndex
from vpr_dhe.models.names import LITE_VLAD, SIFT_VLAD
from vpr_dhe.records import Features, ImageRecord, MetricPosition, Verification
from vpr_dhe.runtime.choices import RankBy
from vpr_dhe.synthetic_town.town import SyntheticTown, write_town
from vpr_dhe.verification.build import build_verifier
from vpr_dhe.verification.estimators.resources import Resources
from vpr_dhe.verification.names import DEFAULT_VERIFIER

BUNDLED = Path(__file__).parents[1] / "vpr_dhe/localization/calibration/bundled"
RERANK = 100
FEATURES = ("score", "margin")
ORDERS: tuple[RankBy, ...] = ("evidence", "inliers")
CODECS = ("float16", "binary")
MADE_FROM = (
    "generated towns; frames of an office tower (MIT, JSebastianIEU/ie-tower-visual-place-recognition); views of Poly "
    "Haven panoramas (CC0)"
)
TOWNS = {False: (11, 12), True: (1000, 1001)}
_STREETS, _TOWN_QUERIES = 5, 50
_SHIFTS_M = (3.0, 12.0)
# Frames of one walk up to here show much of the same.
_SIMILAR_M = 5 * RADIUS_M


@dataclass(frozen=True)
class Row:
    """Scores of the calibration of one model and order on one data set; shares in percent."""

    model: str
    rank_by: str
    dataset: str
    codec: str
    examples: int
    expected_calibration_error: float
    brier_score: float
    known_answered: float
    right_when_sure: float | None


class Remembering(PinnedIndex):
    """Index that verifies each pair once, for both orders."""

    def verify(self, image: QueryImage, features: Features, ids: Sequence[int]) -> dict[int, Verification]:
        """Verify the pairs that are new."""
        assert isinstance(image, np.ndarray)
        known = self.__dict__.setdefault("known", {}).setdefault(hash(image.tobytes()), {})
        known |= super().verify(image, features, [id for id in ids if id not in known])
        return {id: known[id] for id in ids}


@dataclass(frozen=True)
class Labelled:
    """Data set, and the rows of the database that no query is compared with."""

    dataset: PlaceDataset
    withheld: Positives

    @classmethod
    def of(cls, dataset: PlaceDataset) -> "Labelled":
        """Withhold nothing."""
        return cls(dataset, (np.empty(0, np.int64),) * len(dataset.queries.records))


def town(folder: Path, seed: int) -> PlaceDataset:
    """A generated town, rendered unless it is there already."""
    if not folder.exists():
        made = SyntheticTown(seed, _STREETS)
        database = made.database_cameras()
        cameras = [
            camera
            for number, shift_m in enumerate(_SHIFTS_M)
            for camera in made.query_cameras(_TOWN_QUERIES // len(_SHIFTS_M), number, database, shift_m)
        ]
        write_town(folder, made, database, cameras, seed=seed)
    return read_places(folder)


def data_sets(data: Path, folder: Path, queries: int, *, held_out: bool) -> Iterator[Labelled]:
    """Data sets of equally many queries, with positions; towns share one number."""
    seeds = TOWNS[held_out]
    for seed in seeds:
        yield Labelled.of(town(folder / f"town-{seed}", seed).limited(queries // len(seeds)))
    for name, rule in read_rules().items():
        if name != TOWN and (dataset := read_split_of(name, rule, data, held_out=held_out)):
            yield placed(dataset.limited(queries), rule)


def placed(dataset: PlaceDataset, rule: Mapping[str, Any]) -> Labelled:
    """Put each place in a corner of its own, and images of one place as far apart as their frames tell."""
    step_m, period = RADIUS_M / rule["tolerance"], rule.get("period")
    numbers: dict[str, int] = {}

    def spot(path: str, shift: int) -> tuple[int, MetricPosition]:
        found = re.fullmatch(rule["pattern"], path)
        assert found, path
        place, along = numbers.setdefault(found["place"], len(numbers)), int(found["frame"]) + shift
        if not period:
            return place, MetricPosition(1e5 * place + step_m * along, 0.0)
        radius_m, angle = step_m * period / (2 * np.pi), 2 * np.pi * along / period
        return place, MetricPosition(1e5 * place + radius_m * float(np.cos(angle)), radius_m * float(np.sin(angle)))

    database = [spot(record.path, 0) for record in dataset.database.records]
    queries = [spot(record.path, rule.get("frame_shift", 0)) for record in dataset.queries.records]
    corners, steps = np.array([place for place, _ in database]), np.array([spot.x_m for _, spot in database])
    assert dataset.positives is not None
    # A set that is one place, such as a corridor, has others to compare with farther along.
    reach_m = _SIMILAR_M if len(numbers) == 1 else np.inf
    withheld = tuple(
        np.setdiff1d(np.flatnonzero((corners == place) & (np.abs(steps - spot.x_m) <= reach_m)), right)
        for (place, spot), right in zip(queries, dataset.positives, strict=True)
    )
    return Labelled(
        replace(dataset, database=_at(dataset.database, database), queries=_at(dataset.queries, queries)), withheld
    )


def _at(split: PlaceSplit, spots: Sequence[tuple[int, MetricPosition]]) -> PlaceSplit:
    records = (ImageRecord(record.path, position) for record, (_, position) in zip(split.records, spots, strict=True))
    return PlaceSplit(split.folder, tuple(records))


def examples_of(
    labelled: Labelled, extractor: Extractor, verifier: str, codec: str, cache: Path, orders: Sequence[RankBy]
) -> tuple[dict[RankBy, tuple[Example, ...]], int]:
    """Examples of the queries by each order, and the size of the index."""
    dataset = labelled.dataset
    index = FeatureCache(cache).index(dataset.database, extractor, codec=codec)
    database = Remembering(index.snapshot, build_verifier(verifier, Resources(extractor)))
    ids = [index.find(record.path) for record in dataset.database.records]
    queries = [
        replace(query, withheld=frozenset(id for row in rows if (id := ids[row]) is not None))
        for query, rows in zip(labelled_queries(dataset, index), labelled.withheld, strict=True)
    ]
    return {
        order: run_queries(queries, database, extractor, rerank=RERANK, radius_m=RADIUS_M, rank_by=order).examples
        for order in orders
    }, len(index)


def measured(calibration: Calibration, model: str, dataset: str, codec: str, examples: Sequence[Example]) -> Row:
    """Scores of a calibration on examples, known and unknown places weighted alike."""
    right = np.array([example.right for example in examples])
    weights = example_weights(examples, 0.5)
    probabilities = np.array([calibration.probability(example.features) for example in examples])
    known = np.array([example.place_known for example in examples])
    sure = probabilities >= MIN_SURE
    return Row(
        model,
        calibration.conditions.rank_by,
        dataset,
        codec,
        len(examples),
        expected_calibration_error(probabilities, right, weights),
        brier_score(probabilities, right, weights),
        100 * float(sure[known].mean()),
        100 * float(np.average(right[sure], weights=weights[sure])) if sure.any() else None,
    )


def markdown(rows: Sequence[Row]) -> str:
    """Format all rows as one Markdown table."""
    header = ["model", "order", "held-out data", "codec", "ECE", "Brier", "sure of known places", "of the sure right"]
    lines = [
        [
            row.model,
            row.rank_by,
            row.dataset,
            row.codec,
            f"{row.expected_calibration_error:.3f}",
            f"{row.brier_score:.3f}",
            f"{row.known_answered:.1f} %",
            "-" if row.right_when_sure is None else f"{row.right_when_sure:.1f} %",
        ]
        for row in rows
    ]
    return table(header, lines)


def fitted(model: str, arguments: argparse.Namespace, cache: Path) -> DefaultCalibration:
    """Fit the calibration of each order on scenes of training."""
    extractor = load_extractor(model)
    examples: dict[RankBy, list[Example]] = {order: [] for order in ORDERS}
    images = 0
    for labelled in data_sets(arguments.data, cache, arguments.queries, held_out=False):
        found, size = examples_of(labelled, extractor, arguments.verifier, CODECS[0], cache, ORDERS)
        images = max(images, size)
        for order, some in found.items():
            examples[order] += some
        print(f"{model}: {len(found[ORDERS[0]])} examples of {labelled.dataset.name}", flush=True)
    assumptions = Assumptions(RADIUS_M, features=FEATURES)
    calibrations = (
        fit(
            examples[order],
            assumptions,
            Conditions(extractor.spec.fingerprint, arguments.verifier, RERANK, rank_by=order),
            images,
        )
        for order in ORDERS
    )
    return DefaultCalibration(model, MADE_FROM, tuple(calibrations))


def rows_of(model: str, arguments: argparse.Namespace, cache: Path) -> Iterator[Row]:
    """Measure the bundled calibration of the default order on held-out scenes, and on other data sets.

    The other order differs little, and takes as long.
    """
    extractor, order = load_extractor(model), ORDERS[0]
    conditions = Conditions(extractor.spec.fingerprint, arguments.verifier, RERANK, rank_by=order)
    calibration = default_calibration(conditions)
    assert calibration is not None, "written before"
    others = (read_places(folder).limited(arguments.queries) for folder in arguments.also)
    held_out = data_sets(arguments.data, cache, arguments.queries, held_out=True)
    for labelled in chain(held_out, map(Labelled.of, others)):
        for codec in CODECS:
            found, _ = examples_of(labelled, extractor, arguments.verifier, codec, cache, [order])
            row = measured(calibration, model, labelled.dataset.name, codec, found[order])
            print(row, flush=True)
            yield row


def main() -> None:
    """Make, measure and write."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("--model", nargs="+", default=[LITE_VLAD, SIFT_VLAD])
    parser.add_argument("--verifier", default=DEFAULT_VERIFIER)
    parser.add_argument("--queries", type=int, default=50, help="number of queries of each data set")
    parser.add_argument("--also", nargs="*", type=Path, default=[], help="further place data sets to measure on")
    parser.add_argument("--measure-only", action="store_true", help="keep the calibrations of the package")
    parser.add_argument("--cache", type=Path, help="keep towns and features here")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of the results")
    arguments = parser.parse_args()
    with folder_for(arguments.cache) as cache:
        for model in () if arguments.measure_only else arguments.model:
            print(fitted(model, arguments, cache).write(BUNDLED), flush=True)
        rows = [row for model in arguments.model for row in rows_of(model, arguments, cache)]
    arguments.out.mkdir(parents=True, exist_ok=True)
    (arguments.out / "default_calibration.md").write_text(f"{markdown(rows)}\n")
    document = {"verifier": arguments.verifier, "rerank": RERANK, "rows": [asdict(row) for row in rows]}
    write_result(arguments.out / "default_calibration.json", "default calibration", document)
    print(markdown(rows))


if __name__ == "__main__":
    main()
