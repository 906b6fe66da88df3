"""Demonstration of the whole pipeline on a synthetic town: render, index, query, compare with the truth."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter

from vpr_dhe.datasets import read_places
from vpr_dhe.evaluation.place_evaluation import EvaluationResult, Settings, evaluate_dataset
from vpr_dhe.features.extractor import load_extractor
from vpr_dhe.geography.distance import RADIUS_M
from vpr_dhe.images.decoding import decode_image
from vpr_dhe.index.adaptation.report import AdaptationReport
from vpr_dhe.index.place_index import PlaceIndex
from vpr_dhe.localization.database import VerifiedIndex
from vpr_dhe.localization.localizer import Localizer
from vpr_dhe.models.names import DEFAULT_MODEL
from vpr_dhe.records import NOT_VERIFIED, Image, ImageRecord, MetricPosition, Progress, RankedMatch, Verification
from vpr_dhe.runtime.choices import AUTO
from vpr_dhe.synthetic_town.town import SyntheticTown, write_town
from vpr_dhe.verification.build import build_verifiers
from vpr_dhe.verification.estimators.resources import Resources
from vpr_dhe.verification.names import DEFAULT_VERIFIER

# Queries that the table lists.
_EXAMPLES = 8
# Enough for a town of a few hundred views, and quick.
_SETTINGS = Settings(rerank=30, rank_by="evidence")


@dataclass(frozen=True)
class DemoAnswer:
    """One query of the demo with its true position, its best match, and the distance between the two."""

    query: ImageRecord
    match: RankedMatch
    distance_m: float
    right: bool


@dataclass(frozen=True)
class ShownMatch:
    """Pixels of one verified match."""

    query: Image
    candidate: Image
    verification: Verification


@dataclass(frozen=True)
class Demo:
    """Results of the demo: `result` over all queries, `seconds` of wall-clock time in all.

    `adaptation` is what the index learned from the town.
    """

    index: PlaceIndex
    result: EvaluationResult
    adaptation: AdaptationReport
    answers: tuple[DemoAnswer, ...]
    shown: ShownMatch
    seconds: float


def run_demo(folder: Path, *, seed: int, queries: int, stage: Callable[[str, int], Progress]) -> Demo:
    """Build a town in an empty folder, index its database views with the offline model, and localize its query views.

    `stage` is called with the name and the number of images of each stage, and returns its progress callback.
    """
    started = perf_counter()
    town = SyntheticTown(seed)
    database = town.database_cameras()
    cameras = town.query_cameras(queries, seed, database)
    rendered = stage("rendering the town", len(database) + queries)
    write_town(folder / "town", town, database, cameras, seed=seed, progress=rendered)
    dataset = read_places(folder / "town")
    extractor = load_extractor(DEFAULT_MODEL)
    index = PlaceIndex.create(folder / "index", extractor.spec, dataset.database.folder)
    index.add(dataset.database.records, extractor, progress=stage("indexing its database views", len(database)))
    index.configure(rank_by="evidence", adapt=AUTO)
    adaptation = index.adapt()
    verifiers = build_verifiers([DEFAULT_VERIFIER], Resources(extractor))
    querying = stage("localizing its query views", queries)
    result = evaluate_dataset(dataset, index, extractor, verifiers, _SETTINGS, progress=querying)
    database = VerifiedIndex(index, verifiers[DEFAULT_VERIFIER])
    localizer = Localizer(database, extractor, rerank=_SETTINGS.rerank, rank_by=_SETTINGS.rank_by)
    answers = [_answer(localizer, dataset.queries.folder, record) for record in dataset.queries.records[:_EXAMPLES]]
    best = max(answers, key=lambda answer: answer.match.inliers)
    shown = ShownMatch(
        decode_image(dataset.queries.folder / best.query.path),
        decode_image(dataset.database.folder / best.match.image),
        best.match.verification or NOT_VERIFIED,
    )
    return Demo(index, result, adaptation, tuple(answers), shown, perf_counter() - started)


def _answer(localizer: Localizer, folder: Path, query: ImageRecord) -> DemoAnswer:
    match = localizer.localize(folder / query.path, top_k=1).matches[0]
    truth, found = query.position, match.position
    assert isinstance(truth, MetricPosition)
    assert isinstance(found, MetricPosition)
    distance_m = math.dist((truth.x_m, truth.y_m), (found.x_m, found.y_m))
    return DemoAnswer(query, match, distance_m, right=distance_m <= RADIUS_M)
