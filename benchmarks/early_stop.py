"""Early stop of verification: candidates spared and recall lost, by margin.

    python benchmarks/early_stop.py ../shared/data --cache CACHE

verifies the first 100 candidates of each query by `magsac` once, without a shortlist, and makes the coarse pass.
Neither depends on other candidates, so what any margin would have verified follows from that. Compared with verifying
the shortlist of the coarse pass: the share of candidates verified, how often the best match differs, and recall, with
standard errors of paired differences over places. On the street images, also the probabilities of a calibration that
was fitted with and without an early stop, the time, and what a bound by the number of matches would spare.

Writes `early_stop.md`, `early_stop_calibration.md` and `early_stop.json` to `benchmarks/results`.
"""

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import fmean, median
from time import perf_counter
from typing import Any

import numpy as np
from jaxtyping import Bool, Float64
from measuring import RESULTS, folder_for, write_result
from recorded import CANDIDATES, VERIFIER, Query, localize, record, verified_count
from significance import place_numbers, standard_error
from splits import read_splits

from vpr_dhe.datasets import PlaceDataset, Protocol, read_places
from vpr_dhe.evaluation.calibration.fitting import Assumptions, Example, example_weights, fit
from vpr_dhe.evaluation.calibration.metrics import brier_score, expected_calibration_error
from vpr_dhe.evaluation.feature_cache import FeatureCache
from vpr_dhe.evaluation.place_evaluation import Settings, evaluate_dataset
from vpr_dhe.evaluation.query_features import QueryFeatures
from vpr_dhe.features.extractor import load_extractor
from vpr_dhe.geography.distance import RADIUS_M
from vpr_dhe.index.place_index import PlaceIndex
from vpr_dhe.localization.calibration.features import calibration_features
from vpr_dhe.localization.calibration.probability import Conditions
from vpr_dhe.localization.database import PinnedIndex
from vpr_dhe.localization.early_stop import SAFE_MARGIN
from vpr_dhe.localization.ranking import ranked_matches
from vpr_dhe.localization.retrieval import retrieve
from vpr_dhe.models.names import LITE_VLAD
from vpr_dhe.records import Features, Image, MetricPosition
from vpr_dhe.runtime.choices import RankBy
from vpr_dhe.verification.build import build_estimator
from vpr_dhe.verification.verifier import Verifier

MODEL = LITE_VLAD
MARGINS = (3.0, 4.0, 5.0, 6.0, 8.0, 10.0, 12.0)
RANKS = (1, 5, 10)
ORDERS: tuple[RankBy, ...] = ("inliers", "evidence")
_SURE = 0.9
# Margins in the table; the others are in the JSON document.
_SHOWN = (5.0, 8.0, 12.0)


@dataclass(frozen=True)
class Row:
    """A margin on a data set; recall and its change in points of percent, with the standard errors of the change."""

    dataset: str
    queries: int
    rank_by: RankBy
    margin: float
    stopped: float
    share_verified: float
    share_verified_when_stopped: float | None
    best_differs: float
    recall: dict[int, float]
    change: dict[int, float]
    standard_error: dict[int, float]


@dataclass(frozen=True)
class CalibrationRow:
    """Probabilities with an early stop or without, by a calibration that was fitted with one or without."""

    rank_by: RankBy
    fitted_margin: float | None
    margin: float | None
    mean_probability: float
    share_right: float
    brier_score: float
    expected_calibration_error: float
    sure: float
    right_when_sure: float


def find_datasets(data: Path, limit: int) -> Iterator[PlaceDataset]:
    """Street images, two sets of thumbnails, and the sets of `splits.toml`."""
    yield read_places(data / "streetview_west")
    for name in ("thumbs_gardens_point", "thumbs_sped_a"):
        yield read_places(data / name, protocol=Protocol(frame_tolerance=2))
    for held_out in (True, False):
        for dataset in read_splits(data, held_out=held_out):
            yield dataset.limited(limit)


def first_right(query: Query, rank_by: RankBy, margin: float | None) -> tuple[Bool[np.ndarray, " ranks"], int, int]:
    """Whether a positive is within each of the first ranks, the number of verified candidates, and the best one."""
    best = localize(query, rank_by, margin)
    hits = query.right[[one.id for one in best]]
    return np.array([hits[:rank].any() for rank in RANKS]), verified_count(best), best[0].id


def measure(dataset: PlaceDataset, queries: Sequence[Query]) -> Iterator[Row]:
    """Compare each margin with verifying all."""
    places = place_numbers([query.path for query in queries])
    for rank_by in ORDERS:
        everything = [first_right(query, rank_by, None) for query in queries]
        hits = np.array([found for found, _, _ in everything], np.float64)
        for margin in MARGINS:
            stopped = [first_right(query, rank_by, margin) for query in queries]
            counts = zip(queries, stopped, everything, strict=True)
            shares = np.array([count / len(query.inliers) for query, (_, count, _), _ in counts])
            early = np.array([one[1] < other[1] for one, other in zip(stopped, everything, strict=True)])
            gains = np.array([found for found, _, _ in stopped], np.float64) - hits
            yield Row(
                dataset=dataset.name,
                queries=len(queries),
                rank_by=rank_by,
                margin=margin,
                stopped=float(early.mean()),
                share_verified=float(shares.mean()),
                share_verified_when_stopped=float(shares[early].mean()) if early.any() else None,
                best_differs=fmean(one[2] != other[2] for one, other in zip(stopped, everything, strict=True)),
                recall=dict(zip(RANKS, (100 * hits.mean(axis=0)).tolist(), strict=True)),
                change=dict(zip(RANKS, (100 * gains.mean(axis=0)).tolist(), strict=True)),
                standard_error={
                    rank: 100 * standard_error(gain, places) for rank, gain in zip(RANKS, gains.T, strict=True)
                },
            )


def example(dataset: PlaceDataset, query: Query, rank_by: RankBy, margin: float | None, *, known: bool) -> Example:
    """One example for a calibration."""
    best = localize(query, rank_by, margin)
    records = {place: dataset.database.records[row] for place, row in enumerate(query.rows.tolist())}
    features = calibration_features(ranked_matches(best, records), RADIUS_M)
    shown_by = frozenset(query.rows[query.right].tolist())
    return Example(features, bool(query.right[best[0].id]), known, shown_by)


def calibration_rows(dataset: PlaceDataset, queries: Sequence[Query]) -> Iterator[CalibrationRow]:
    """Fit on the queries west of the median easting and test on those east of it, and the other way round."""
    positions = [record.position for record in dataset.queries.records]
    eastings = np.array([position.x_m for position in positions if isinstance(position, MetricPosition)])
    sides = np.sign(np.where(np.abs(eastings - np.median(eastings)) < RADIUS_M, 0, eastings - np.median(eastings)))
    for rank_by in ORDERS:
        halves = {
            margin: {side: _examples(dataset, queries, sides == side, rank_by, margin) for side in (-1, 1)}
            for margin in (None, SAFE_MARGIN)
        }
        for fitted, tested in ((None, None), (None, SAFE_MARGIN), (SAFE_MARGIN, SAFE_MARGIN)):
            examples, chances = [], []
            for side in (-1, 1):
                calibration = fit(
                    halves[fitted][-side], Assumptions(RADIUS_M), Conditions(MODEL, VERIFIER, CANDIDATES), 0
                )
                examples += halves[tested][side]
                chances += [calibration.probability(one.features) for one in halves[tested][side]]
            yield _calibration_row(rank_by, fitted, tested, examples, np.array(chances))


def _examples(
    dataset: PlaceDataset,
    queries: Sequence[Query],
    chosen: Bool[np.ndarray, " queries"],
    rank_by: RankBy,
    margin: float | None,
) -> list[Example]:
    examples: list[Example] = []
    assert dataset.positives is not None
    for number in np.flatnonzero(chosen).tolist():
        query, known = queries[number], dataset.positives[number].size > 0
        examples.append(example(dataset, query, rank_by, margin, known=known))
        if known:
            examples.append(example(dataset, query.without(query.right), rank_by, margin, known=False))
    return examples


def _calibration_row(
    rank_by: RankBy,
    fitted: float | None,
    tested: float | None,
    examples: Sequence[Example],
    chances: Float64[np.ndarray, " examples"],
) -> CalibrationRow:
    right, weights = np.array([one.right for one in examples]), example_weights(examples, 0.5)
    sure = chances >= _SURE
    return CalibrationRow(
        rank_by=rank_by,
        fitted_margin=fitted,
        margin=tested,
        mean_probability=float(np.average(chances, weights=weights)),
        share_right=float(np.average(right, weights=weights)),
        brier_score=brier_score(chances, right, weights),
        expected_calibration_error=expected_calibration_error(chances, right, weights),
        sure=float(np.average(sure, weights=weights)),
        right_when_sure=float(np.average(right[sure], weights=weights[sure])),
    )


def measure_time(dataset: PlaceDataset, cache: Path) -> dict[str, Any]:
    """Time of re-ranking with and without the early stop, of its parts, and possible savings by the match count."""
    extractor = load_extractor(MODEL)
    index = FeatureCache(cache).index(dataset.database, extractor)
    features = list(FeatureCache(cache).queries(dataset.queries, extractor))
    verifiers = {VERIFIER: Verifier(build_estimator(VERIFIER))}
    settings = Settings(RANKS, CANDIDATES, stop_early=SAFE_MARGIN)
    (method,) = evaluate_dataset(dataset, index, extractor, verifiers, settings, queries=features).verifiers
    assert method.early_stop is not None
    return {
        "queries": len(features),
        "all_ms": method.median_ms,
        "early_stop_ms": method.early_stop.median_ms,
        "spared_ms": method.early_stop.spared_ms,
        "share_verified": method.early_stop.share_verified,
        **bound_by_matches(index, verifiers[VERIFIER], features),
    }


def bound_by_matches(index: PlaceIndex, verifier: Verifier, queries: Sequence[QueryFeatures]) -> dict[str, float]:
    """Time of matching and of everything after it, and the share of estimates that the number of matches would spare.

    A candidate has at most as many inliers as matches, so an estimate is idle if `top_k` earlier candidates have more.
    """
    blank: Image = np.zeros((16, 16, 3), np.uint8)  # magsac uses no pixels
    matching_ms, all_ms = [], []
    idle: dict[int, list[float]] = {1: [], 5: []}
    for features in queries:
        assert isinstance(features, Features)
        database = PinnedIndex(index.snapshot, verifier)
        ids = [one.id for one in retrieve(database, features, CANDIDATES)]
        started = perf_counter()
        mutual = index.snapshot.stored_maps(ids).match(features.local_map).mutual.sum(dim=1).numpy()
        matched = perf_counter()
        found = database.verify(blank, features, ids)
        matching_ms.append(1e3 * (matched - started))
        all_ms.append(1e3 * (perf_counter() - matched))
        inliers = np.array([found[id].inliers for id in ids])
        for top_k, shares in idle.items():
            bounds = [np.sort(inliers[:place])[-top_k] if place >= top_k else 0 for place in range(len(ids))]
            shares.append(float((mutual <= bounds).mean()))
    return {
        "matching_ms": median(matching_ms),
        "matching_and_estimating_ms": median(all_ms),
        **{f"share_idle_top_{top_k}": fmean(shares) for top_k, shares in idle.items()},
    }


def margins_table(rows: Sequence[Row]) -> str:
    """Format margins by data set as a Markdown table."""
    lines = [
        ["data set", "ranked by", "margin", "stopped", "verified", "verified if stopped", "best differs"]
        + [f"R@{rank}" for rank in RANKS]
    ]
    for row in (row for row in rows if row.margin in _SHOWN):
        sure = row.share_verified_when_stopped
        lines.append(
            [
                f"{row.dataset} ({row.queries})",
                row.rank_by,
                f"{row.margin:g}",
                *(f"{100 * share:.0f} %" for share in (row.stopped, row.share_verified)),
                "" if sure is None else f"{100 * sure:.0f} %",
                f"{100 * row.best_differs:.1f} %",
                *(f"{row.recall[rank]:.1f} {row.change[rank]:+.1f} ± {row.standard_error[rank]:.1f}" for rank in RANKS),
            ]
        )
    return _table(lines)


def calibration_table(rows: Sequence[CalibrationRow]) -> str:
    """Format probabilities as a Markdown table."""
    header = "ranked by,fitted with,asked with,mean p,right,Brier score,calibration error,sure,right if sure"
    table = [header.split(",")]
    table += [
        [
            one.rank_by,
            *("all" if margin is None else f"margin {margin:g}" for margin in (one.fitted_margin, one.margin)),
            f"{one.mean_probability:.3f}",
            f"{one.share_right:.3f}",
            f"{one.brier_score:.4f}",
            f"{one.expected_calibration_error:.3f}",
            f"{100 * one.sure:.1f} %",
            f"{100 * one.right_when_sure:.1f} %",
        ]
        for one in rows
    ]
    return _table(table)


def _table(lines: Sequence[Sequence[str]]) -> str:
    header, *rows = lines
    return "".join(f"| {' | '.join(cells)} |\n" for cells in (header, ["---"] * len(header), *rows))


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("data", type=Path, help="folder of streetview_west, the thumbnails and train_open")
    parser.add_argument("--queries", type=int, default=300, help="maximum number of queries of a set of splits.toml")
    parser.add_argument("--timed-queries", type=int, default=100)
    parser.add_argument("--cache", type=Path, help="keep features and verifications here")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of the results")
    arguments = parser.parse_args()
    rows: list[Row] = []
    calibration: list[CalibrationRow] = []
    times: dict[str, Any] = {}
    with folder_for(arguments.cache) as cache:
        for dataset in find_datasets(arguments.data, arguments.queries):
            queries = record(dataset, load_extractor(MODEL), cache)
            rows += measure(dataset, queries)
            if not calibration:
                calibration += calibration_rows(dataset, queries)
                times = measure_time(dataset.limited(arguments.timed_queries), cache)
            print(f"{dataset.name} done", flush=True)
    for name, table in (
        ("early_stop", margins_table(rows)),
        ("early_stop_calibration", calibration_table(calibration)),
    ):
        print(table)
        (arguments.out / f"{name}.md").write_text(table)
    found = {"rows": [asdict(row) for row in rows], "calibration": [asdict(row) for row in calibration], "time": times}
    write_result(arguments.out / "early_stop.json", "early_stop", found)


if __name__ == "__main__":
    main()
