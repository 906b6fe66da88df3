"""Sequences against single frames: belief over places on a route and on walks through a town.

    python benchmarks/sequences.py FOLDER_OF_DATA_SETS [--cache FOLDER]

The folder holds `streetview_west` (standard layout, positions and headings in names) and `thumbs_gardens_point` (a
route: image i of the queries shows the place of image i of the database). Half of each database is left out, in blocks
of 100 m or of 25 frames drawn by `--seed`, so that many queries show no place of the map, and any match of them is
wrong. Queries of the town become walks: those of one heading, each followed by the nearest remaining one, until that is
more than 60 m away; odometry is their true motion with noise.

Every query is localized once, with 20 candidates verified by magsac; then methods are compared on the same candidates:
rank 1 by inliers, the belief of each single frame, and that of the whole sequence. R@1 is over queries with a positive;
area under the precision-recall curve and recall at 100 % precision are over all queries. Positions are those of
`Localization.estimate` and of rank 1, of queries with a positive. Writes `benchmarks/results/sequences.md` and
`sequences.json`, which also holds the deviations of right and wrong candidates.
"""

import argparse
import math
import shutil
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

import numpy as np
from jaxtyping import Float64
from measuring import RESULTS, folder_for, table, write_result

from vpr_dhe.datasets import PlaceDataset, Protocol, read_places
from vpr_dhe.evaluation.feature_cache import FeatureCache
from vpr_dhe.evaluation.precision_recall import precision_recall
from vpr_dhe.features.base import Extractor
from vpr_dhe.features.extractor import load_extractor
from vpr_dhe.geography.distance import RADIUS_M
from vpr_dhe.index.place_index import PlaceIndex
from vpr_dhe.localization.database import VerifiedIndex
from vpr_dhe.localization.localizer import Localizer
from vpr_dhe.localization.robust_scores import contrasts
from vpr_dhe.records import Localization, MetricPosition
from vpr_dhe.sequences.motion import MotionModel, PositionMotion, RouteMotion
from vpr_dhe.sequences.odometry import Odometry, Step
from vpr_dhe.sequences.place_map import PlaceMap
from vpr_dhe.sequences.sequence_localizer import SequenceLocalizer
from vpr_dhe.sequences.tracker import PlaceTracker
from vpr_dhe.verification.build import build_verifier
from vpr_dhe.verification.estimators.resources import Resources

CANDIDATES = 20
_BLOCK_M, _BLOCK_FRAMES = 100.0, 25
_MAX_STEP_M = 60.0
# Relative to the distance, and in degrees: usual errors of wheels and gyroscope of a small robot.
_ODOMETRY_NOISE, _TURN_NOISE_DEG = 0.05, 2.0
_CONTRAST_BINS = (-math.inf, 0, 1, 2, 3, 4, 5, 6, 8, 10, 15, math.inf)
DATASETS = {"streetview_west": Protocol(), "thumbs_gardens_point": Protocol(frame_tolerance=2)}
COLUMNS = ("recall at 1", "area under precision-recall", "recall at 100 % precision", "ms per frame")
Walk = list[tuple[int, Odometry | None]]


@dataclass(frozen=True)
class Answer:
    """Image that a method predicts for a query, and its confidence."""

    image: str
    score: float


@dataclass(frozen=True)
class SingleFrames:
    """Data set with half of its database, and the localizations of its single frames."""

    dataset: PlaceDataset
    localizer: Localizer
    answers: list[Localization]
    kept: frozenset[str]

    def right(self, query: int) -> frozenset[str]:
        """Paths of the remaining images that show a query's place."""
        assert self.dataset.positives is not None
        rows = self.dataset.positives[query].tolist()
        return frozenset(self.dataset.database.records[row].path for row in rows) & self.kept


def left_out(dataset: PlaceDataset, seed: int) -> list[str]:
    """Choose the paths of half of the database, block by block."""
    records = dataset.database.records
    blocks: list[tuple[int, ...]] = [
        (int(record.position.x_m // _BLOCK_M), int(record.position.y_m // _BLOCK_M))
        if isinstance(record.position, MetricPosition)
        else (row // _BLOCK_FRAMES,)
        for row, record in enumerate(records)
    ]
    distinct = sorted(set(blocks))
    chosen = np.random.default_rng(seed).permutation(len(distinct))[: len(distinct) // 2]
    gone = {distinct[number] for number in chosen.tolist()}
    return [record.path for record, block in zip(records, blocks, strict=True) if block in gone]


def localize_frames(
    dataset: PlaceDataset, extractor: Extractor, whole: PlaceIndex, folder: Path, gone: Sequence[str]
) -> SingleFrames:
    """Localize every query in a copy of the index without the images that are left out."""
    shutil.copytree(whole.folder, folder)
    index = PlaceIndex.open(folder)
    index.remove([id for path in gone if (id := index.find(path)) is not None])
    verifier = build_verifier("magsac", Resources(extractor))
    localizer = Localizer(VerifiedIndex(index, verifier), extractor, rerank=CANDIDATES)
    answers = [
        localizer.localize(dataset.queries.folder / record.path, top_k=CANDIDATES) for record in dataset.queries.records
    ]
    kept = frozenset(record.path for record in dataset.database.records) - frozenset(gone)
    return SingleFrames(dataset, localizer, answers, kept)


def route(dataset: PlaceDataset) -> list[Walk]:
    """Return all queries in order, as one walk."""
    return [[(query, None) for query in range(len(dataset.queries.records))]]


def walks(dataset: PlaceDataset, seed: int) -> list[Walk]:
    """Chain queries of one heading, each followed by the nearest remaining one, with noisy odometry."""
    rng = np.random.default_rng(seed)
    records = dataset.queries.records
    points = PlaceMap(enumerate(records))
    metres = points.positions_m()[points.places_of(range(len(records)))]
    found: list[Walk] = []
    for heading in sorted({record.heading_deg for record in records if record.heading_deg is not None}):
        left = [row for row, record in enumerate(records) if record.heading_deg == heading]
        walk: Walk = []
        while left:
            at = walk[-1][0] if walk else left[0]
            nearest = min(left, key=lambda row: float(np.linalg.norm(metres[row] - metres[at])))
            moved = metres[nearest] - metres[at]
            if walk and np.linalg.norm(moved) > _MAX_STEP_M:
                found.append(walk)
                walk = []
            walk.append((nearest, _odometry(moved, heading, rng) if walk else None))
            left.remove(nearest)
        found.append(walk)
    return found


def _odometry(moved: Float64[np.ndarray, "2"], heading_deg: float, rng: np.random.Generator) -> Odometry:
    direction_deg = math.degrees(math.atan2(moved[0], moved[1])) - heading_deg + rng.normal(0, _TURN_NOISE_DEG)
    distance_m = float(np.linalg.norm(moved)) * (1 + rng.normal(0, _ODOMETRY_NOISE))
    return Odometry(abs(distance_m), direction_deg, float(rng.normal(0, _TURN_NOISE_DEG)))


def by_inliers(frames: SingleFrames) -> list[Answer]:
    """Predict rank 1."""
    return [Answer(answer.matches[0].image, float(answer.matches[0].inliers)) for answer in frames.answers]


def by_belief(
    frames: SingleFrames,
    sequences: Sequence[Walk],
    motion: Callable[[PlaceMap], MotionModel],
    *,
    odometry: bool = False,
) -> list[Answer]:
    """Predict the likeliest place after each frame, with one tracker per sequence."""
    places = SequenceLocalizer(frames.localizer).place_map()
    moving = motion(places)
    answers: dict[int, Answer] = {}
    for walk in sequences:
        tracker = PlaceTracker(places, moving)
        for query, moved in walk:
            tracker.follow(frames.answers[query].matches, Step(odometry=moved if odometry else None))
            ((id, probability),) = tracker.likeliest(1)
            answers[query] = Answer(frames.localizer.database.pinned().records([id])[id].path, probability)
    return [answers[query] for query in range(len(answers))]


def score(frames: SingleFrames, answers: Sequence[Answer]) -> dict[str, float]:
    """Score the answers and their confidences."""
    right = [answer.image in frames.right(query) for query, answer in enumerate(answers)]
    answerable = sum(bool(frames.right(query)) for query in range(len(answers)))
    curve = precision_recall([answer.score for answer in answers], right, answerable)
    assert curve is not None, "some query has a positive"
    return {
        "recall at 1": 100 * sum(right) / answerable,
        "area under precision-recall": curve.area,
        "recall at 100 % precision": curve.recall_at_full_precision,
        "answerable": answerable,
        "queries": len(answers),
    }


def standing_out(frames: SingleFrames) -> dict[str, list[float]]:
    """Compute the shares of right and of wrong candidates by their deviations."""
    found: dict[bool, list[float]] = {True: [], False: []}
    for query, answer in enumerate(frames.answers):
        right = frames.right(query)
        for match, contrast in zip(answer.matches, contrasts(answer.matches).tolist(), strict=True):
            found[match.image in right].append(contrast)
    shares = {is_right: np.histogram(values, _CONTRAST_BINS)[0] / len(values) for is_right, values in found.items()}
    return {"from": list(_CONTRAST_BINS[1:-1]), "right": shares[True].tolist(), "wrong": shares[False].tolist()}


def position_errors(frames: SingleFrames) -> dict[str, float]:
    """Compare estimates and positions of rank 1 with the truth, and count the truths inside the ellipse."""
    errors: list[tuple[float, float, float]] = []
    for query, (record, answer) in enumerate(zip(frames.dataset.queries.records, frames.answers, strict=True)):
        truth, best, estimate = record.position, answer.matches[0].position, answer.estimate
        if estimate is None or not frames.right(query):
            continue
        at = estimate.position
        assert isinstance(truth, MetricPosition)
        assert isinstance(best, MetricPosition)
        assert isinstance(at, MetricPosition)
        apart = np.array([truth.x_m - at.x_m, truth.y_m - at.y_m])
        deviations = float(apart @ np.linalg.solve(estimate.covariance_m2, apart))
        errors.append(
            (math.dist((truth.x_m, truth.y_m), (best.x_m, best.y_m)), float(np.linalg.norm(apart)), deviations)
        )
    rank_1, fused, deviations = np.array(errors).T
    near = fused <= 2 * RADIUS_M
    return {
        "median error of rank 1, m": median(rank_1.tolist()),
        "median error of the estimate, m": median(fused.tolist()),
        "rank 1 within 10 m, %": 100 * float((rank_1 <= 10).mean()),
        "estimate within 10 m, %": 100 * float((fused <= 10).mean()),
        "rank 1 within 25 m, %": 100 * float((rank_1 <= RADIUS_M).mean()),
        "estimate within 25 m, %": 100 * float((fused <= RADIUS_M).mean()),
        "truth in the 95 % ellipse, of estimates within 50 m, %": 100 * float((deviations[near] <= 5.991).mean()),
        "estimates": len(errors),
    }


Method = Callable[[SingleFrames], list[Answer]]


def methods_of(dataset: PlaceDataset, seed: int) -> dict[str, Method]:
    """List the methods to compare on a data set."""
    alone: list[Walk] = [[(query, None)] for query in range(len(dataset.queries.records))]
    if dataset.queries.records[0].position is None:
        along = partial(by_belief, motion=lambda _: RouteMotion())
        return {
            "rank 1": by_inliers,
            "belief of single frames": partial(along, sequences=alone),
            "belief of the sequence": partial(along, sequences=route(dataset)),
        }
    found = walks(dataset, seed)
    moving = partial(by_belief, motion=lambda places: PositionMotion(places, max_step_m=_MAX_STEP_M))
    return {
        "rank 1": by_inliers,
        "belief of single frames": partial(moving, sequences=alone),
        "belief of the sequence, steps up to 60 m": partial(moving, sequences=found),
        "belief of the sequence, odometry": partial(moving, sequences=found, odometry=True),
    }


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folder", type=Path, help="folder of the data sets")
    parser.add_argument("--model", default="sift-vlad")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--cache", type=Path, help="cache features of databases here")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of the results")
    arguments = parser.parse_args()
    extractor = load_extractor(arguments.model)
    rows: list[list[str]] = []
    document: dict[str, Any] = {"model": arguments.model, "seed": arguments.seed, "data sets": {}}
    for name, protocol in DATASETS.items():
        dataset = read_places(arguments.folder / name, protocol=protocol)
        with folder_for(arguments.cache) as cache, tempfile.TemporaryDirectory() as folder:
            whole = FeatureCache(cache).index(dataset.database, extractor)
            frames = localize_frames(
                dataset, extractor, whole, Path(folder) / "index", left_out(dataset, arguments.seed)
            )
            scores: dict[str, dict[str, float]] = {}
            for method, answer in methods_of(dataset, arguments.seed).items():
                started = perf_counter()
                scores[method] = score(frames, answer(frames))
                scores[method]["ms per frame"] = 1e3 * (perf_counter() - started) / len(frames.answers)
                rows.append([name, method, *(f"{scores[method][column]:.1f}" for column in COLUMNS)])
            found: dict[str, Any] = {"methods": scores, "standing out": standing_out(frames)}
            if dataset.queries.records[0].position is not None:
                found["positions"] = position_errors(frames)
        document["data sets"][name] = found
    text = table(["data set", "method", *COLUMNS], rows)
    positions = [part["positions"] for part in document["data sets"].values() if "positions" in part]
    second = table(
        ["position of streetview_west", ""], [[what, f"{value:.1f}"] for what, value in positions[0].items()]
    )
    print(text, second, sep="\n\n")
    arguments.out.mkdir(parents=True, exist_ok=True)
    (arguments.out / "sequences.md").write_text(f"{text}\n\n{second}\n")
    write_result(arguments.out / "sequences.json", "sequences", document)


if __name__ == "__main__":
    main()
