"""Evaluation of retrieval and verifiers on a place data set."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from statistics import fmean, median

import numpy as np

from vpr_dhe.datasets.base import PlaceDataset, Positives
from vpr_dhe.errors import BadInputError
from vpr_dhe.evaluation.precision_recall import PrecisionRecall, precision_recall
from vpr_dhe.evaluation.query_features import QueryFeatures, extract_queries
from vpr_dhe.evaluation.recall import Denominator, counted_queries, mean_average_precision_at, recall_at
from vpr_dhe.features.base import Extractor
from vpr_dhe.images.decoding import decode_named
from vpr_dhe.index.adaptation.report import AdaptationReport
from vpr_dhe.index.manifest import SkippedImage
from vpr_dhe.index.place_index import PlaceIndex
from vpr_dhe.localization.candidate_maps import QueryImage, SharedCandidateMaps
from vpr_dhe.localization.database import PinnedIndex
from vpr_dhe.localization.early_stop import require_margin
from vpr_dhe.localization.ranking import require_rerank, rerank
from vpr_dhe.localization.retrieval import Candidate, retrieve
from vpr_dhe.records import Features, Image, Progress
from vpr_dhe.runtime.choices import AUTO, RankBy
from vpr_dhe.runtime.sampling import evenly_spread
from vpr_dhe.runtime.stopwatch import Stopwatch
from vpr_dhe.runtime.text import none_of
from vpr_dhe.verification.verifier import Verifier

# Extra candidates, so that ties in similarity at the cut are all there before they are sorted.
_SPARE = 16
# Enough for a stable median.
_TIMED_QUERIES = 32

RETRIEVAL = "retrieval"
"""Name of the baseline: ranking by global descriptors alone."""

EXTRACTED = "extracted"
"""Name of retrieval by descriptors as extracted, measured beside that by adapted ones."""


@dataclass(frozen=True)
class Settings:
    """Settings of an evaluation.

    Args:
        ranks: values of N, ascending.
        rerank: number of candidates to verify per query.
        denominator: queries that recall@N is a share of.
        one_per_panorama: count only the best of several images cut from one panorama as a prediction, as in the
            Tokyo 24/7 protocol of NetVLAD (Arandjelovic et al., CVPR 2016).
        rank_by: order of verified candidates.
        stop_early: margin of an early stop to measure beside each verifier; None measures none.
    """

    ranks: tuple[int, ...] = (1, 5, 10, 20)
    rerank: int = 100
    denominator: Denominator = Denominator.all
    one_per_panorama: bool = False
    rank_by: RankBy = "inliers"
    stop_early: float | None = None


@dataclass(frozen=True)
class Prediction:
    """Row of a database image, and its score in the ranking."""

    row: int
    score: float


@dataclass(frozen=True)
class Scores:
    """Scores of a method in percent: recall@N over the denominator, mAP@N over the queries with a positive."""

    recall: dict[int, float]
    mean_average_precision: dict[int, float]
    precision_recall: PrecisionRecall | None


@dataclass(frozen=True)
class EarlyStop:
    """Scores of a verifier that stops early.

    Args:
        scores: as for `MethodResult`.
        median_ms: time of re-ranking per query.
        share_verified: mean share of the candidates that were verified, in percent.
        spared_ms: mean time per query that verifying all candidates takes longer.
    """

    scores: Scores | None
    median_ms: float
    share_verified: float
    spared_ms: float


@dataclass(frozen=True)
class MethodResult:
    """Predictions and scores of retrieval, or of retrieval re-ranked by a verifier.

    `predictions` holds the first predictions of each query, best first, up to the largest rank; none for unreadable
    queries. `scores` is None if the ground truth is not public. `median_ms` is the time per query of the method itself:
    the search, or the re-ranking. `early_stop` is the same verifier with `Settings.stop_early`, if that is set.
    """

    name: str
    predictions: tuple[tuple[Prediction, ...], ...]
    scores: Scores | None
    median_ms: float
    early_stop: EarlyStop | None = None


@dataclass(frozen=True)
class EvaluationResult:
    """Results of one model and any number of verifiers on one data set.

    Retrieval by descriptors as `extracted` is measured beside that by adapted ones, if the index is adapted to its map,
    as `adaptation` reports. Unreadable queries count as missed. `extract_ms` is the latency of decoding and extracting
    one query: the median over at most 32 evenly spread queries, timed one by one, independent of batches and cache.
    """

    dataset: PlaceDataset
    settings: Settings
    model: str
    codec: str
    index_type: str
    unreadable_database: tuple[SkippedImage, ...]
    unreadable_queries: tuple[SkippedImage, ...]
    extract_ms: float
    retrieval: MethodResult
    verifiers: tuple[MethodResult, ...]
    extracted: MethodResult | None = None
    adaptation: AdaptationReport | None = None

    @property
    def methods(self) -> tuple[MethodResult, ...]:
        """All methods, retrieval first, then that by descriptors as extracted, if the index is adapted."""
        return (self.retrieval, *((self.extracted,) if self.extracted else ()), *self.verifiers)

    @property
    def num_queries_with_positive(self) -> int | None:
        """Number of queries with a positive; None if the ground truth is not public."""
        positives = self.dataset.positives
        return None if positives is None else sum(right.size > 0 for right in positives)

    def total_ms(self, method: MethodResult | EarlyStop) -> float:
        """Return the time from image file to ranking: the sum of the medians of all stages."""
        search_ms = self.retrieval.median_ms
        if method is self.retrieval or method is self.extracted:
            return self.extract_ms + method.median_ms
        return self.extract_ms + search_ms + method.median_ms


@dataclass(frozen=True)
class Tools:
    """Index, extractor and verifiers of an evaluation, to repeat its worst queries."""

    index: PlaceIndex
    extractor: Extractor
    verifiers: Mapping[str, Verifier]


def evaluate_dataset(
    dataset: PlaceDataset,
    index: PlaceIndex,
    extractor: Extractor,
    verifiers: Mapping[str, Verifier],
    settings: Settings | None = None,
    *,
    queries: Iterable[QueryFeatures] | None = None,
    progress: Progress = lambda _: None,
) -> EvaluationResult:
    """Retrieve candidates for every query of a data set, re-rank them by each verifier, and score the rankings.

    Args:
        dataset: its database is the content of the index.
        index: made by this extractor; searched as it is, adapted to its map or not.
        extractor: extracts the queries, in batches of eight unless `queries` are given.
        verifiers: by name; without any, retrieval alone is measured.
        settings: ranks, candidates and denominator.
        queries: features of all queries of the data set by this extractor, in order, such as `FeatureCache.queries`.
        progress: called with the number of queries just finished.

    Raises:
        BadInputError: if no query can be read, no candidate is to be verified, or `one_per_panorama` is set and
            panoramas are unknown.
    """
    settings = settings or Settings()
    require_margin(settings.stop_early)
    require_rerank(settings.rerank)
    if settings.one_per_panorama and dataset.panoramas is None:
        raise BadInputError(
            f"the image names in {dataset.database.folder} name no panorama (their eighth field is empty); leave out "
            "--one-per-panorama"
        )
    run = _Run(dataset, index, extractor, verifiers, settings)
    found = (
        extract_queries(dataset.queries, extractor, grey_levels=index.manifest.levels) if queries is None else queries
    )
    for record, features in zip(dataset.queries.records, found, strict=True):
        run.add(record.path, features)
        progress(1)
    return run.result()


@dataclass(frozen=True)
class _Answer:
    """Result of one method for one query, without homographies and inliers, which would fill the memory."""

    predictions: tuple[Prediction, ...]
    milliseconds: float
    share_verified: float = 1.0


class _Run:
    """Answers of one evaluation, query by query."""

    def __init__(
        self,
        dataset: PlaceDataset,
        index: PlaceIndex,
        extractor: Extractor,
        verifiers: Mapping[str, Verifier],
        settings: Settings,
    ) -> None:
        self._dataset, self._extractor, self._settings = dataset, extractor, settings
        self._manifest = index.manifest
        self._unverified = PinnedIndex(index.snapshot, None)
        self._extracted = PinnedIndex(index.snapshot, None, adapt="off") if self._unverified.adaptation else None
        self._shared_maps = SharedCandidateMaps()
        self._verified = {
            name: PinnedIndex(index.snapshot, verifier, maps_of=self._shared_maps)
            for name, verifier in verifiers.items()
        }
        # Not shared, because an early stop reads and matches fewer candidates.
        self._stopping = {name: PinnedIndex(index.snapshot, verifier) for name, verifier in verifiers.items()}
        rows = {index.find(record.path): row for row, record in enumerate(dataset.database.records)}
        self._row_of = {id: row for id, row in rows.items() if id is not None}
        # Of each query, by method; empty for unreadable queries.
        self._answers: list[dict[str, _Answer]] = []
        self._early: list[dict[str, _Answer]] = []
        self._uses_images = any(verifier.estimator.uses_images for verifier in verifiers.values())
        self._unreadable: list[SkippedImage] = []

    def add(self, path: str, features: QueryFeatures) -> None:
        """Retrieve and re-rank the candidates of one query."""
        if isinstance(features, SkippedImage):
            self._unreadable.append(features)
            self._answers.append({})
            self._early.append({})
            return
        load = partial(self._decode, self._dataset.queries.folder / path)
        # Decoded before the clock starts, and only for verifiers that use pixels.
        image = load() if self._uses_images else load
        clock = Stopwatch()
        found = retrieve(self._unverified, features, self._count + _SPARE)
        search_ms = clock.lap_ms()
        candidates = self._in_database_order(found)
        answers = {RETRIEVAL: _Answer(self._predictions(candidates), search_ms)}
        if self._extracted:
            clock.lap_ms()
            found = retrieve(self._extracted, features, self._count + _SPARE)
            search_ms = clock.lap_ms()
            answers[EXTRACTED] = _Answer(self._predictions(self._in_database_order(found)), search_ms)
        early: dict[str, _Answer] = {}
        for name, database in self._verified.items():
            stop = partial(self._reranked, self._stopping[name], image, features, candidates, self._settings.stop_early)
            stops, stops_first = self._settings.stop_early is not None, len(self._answers) % 2 == 1
            # In turns, because the second of the two finds files in memory and keypoints in the cache.
            if stops and stops_first:
                early[name] = stop()
            answer = self._reranked(database, image, features, candidates)
            # As if each verifier read and matched the candidates itself.
            answers[name] = replace(answer, milliseconds=answer.milliseconds + self._shared_maps.take_saved_ms())
            if stops and not stops_first:
                early[name] = stop()
        self._answers.append(answers)
        self._early.append(early)

    def _decode(self, path: Path) -> Image:
        """Decode a query as the index decodes its images."""
        return decode_named(path, self._manifest.levels)

    def _reranked(
        self,
        database: PinnedIndex,
        image: QueryImage,
        features: Features,
        candidates: Sequence[Candidate],
        stop_early: float | None = None,
    ) -> _Answer:
        clock, count = Stopwatch(), min(self._settings.rerank, len(candidates))
        ranked = rerank(database, image, features, candidates, count, self._settings.rank_by, stop_early=stop_early)
        milliseconds = clock.lap_ms()
        verified = sum(one.verification is not None and one.verification.attempted for one in ranked)
        return _Answer(self._predictions(ranked), milliseconds, verified / count)

    def _in_database_order(self, found: Sequence[Candidate]) -> list[Candidate]:
        """Order candidates of equal similarity as in the database, independent of the order of indexing."""
        ordered = sorted(found, key=lambda one: (-one.similarity, self._row_of[one.id]))
        return ordered[: self._count]

    @property
    def _count(self) -> int:
        """Number of candidates to retrieve, so that enough remain with one per panorama."""
        count = max(*self._settings.ranks, self._settings.rerank if self._verified else 1)
        if not self._settings.one_per_panorama:
            return count
        assert self._dataset.panoramas is not None
        return count * int(np.bincount(self._dataset.panoramas).max())

    def result(self) -> EvaluationResult:
        """Score all answers."""
        if not any(self._answers):
            reason = f"{self._unreadable[0].path}: {self._unreadable[0].reason}"
            raise BadInputError(f"{none_of(len(self._answers), 'query', 'queries')} could be read ({reason})")
        return EvaluationResult(
            dataset=self._dataset,
            settings=self._settings,
            model=self._manifest.spec.model,
            codec=self._manifest.codec.name if self._manifest.codec else AUTO,
            index_type=self._manifest.settings.index_type,
            unreadable_database=self._manifest.skipped,
            unreadable_queries=tuple(self._unreadable),
            extract_ms=self._extract_ms(),
            retrieval=self._method(RETRIEVAL),
            verifiers=tuple(self._method(name) for name in self._verified),
            extracted=self._method(EXTRACTED) if self._extracted else None,
            adaptation=self._unverified.adaptation and self._unverified.adaptation.report,
        )

    def _extract_ms(self) -> float:
        """Decode and extract some of the readable queries again, one by one; median time."""
        paths = [
            self._dataset.queries.folder / record.path
            for record, answers in zip(self._dataset.queries.records, self._answers, strict=True)
            if answers
        ]
        return median(self._extraction_ms(paths[number]) for number in evenly_spread(len(paths), _TIMED_QUERIES))

    def _extraction_ms(self, path: Path) -> float:
        clock = Stopwatch()
        (features,) = self._extractor.extract([self._decode(path)])
        features.global_descriptor.cpu()  # waits for a GPU
        return clock.lap_ms()

    def _method(self, name: str) -> MethodResult:
        predictions, scores = self._scored(name, self._answers)
        median_ms = median(answers[name].milliseconds for answers in self._answers if answers)
        early_stop = self._early_stop(name) if any(name in answers for answers in self._early) else None
        return MethodResult(name, predictions, scores, median_ms, early_stop)

    def _early_stop(self, name: str) -> EarlyStop:
        early = [answers[name] for answers in self._early if answers]
        full_ms = fmean(answers[name].milliseconds for answers in self._answers if answers)
        return EarlyStop(
            scores=self._scored(name, self._early)[1],
            median_ms=median(answer.milliseconds for answer in early),
            share_verified=100 * fmean(answer.share_verified for answer in early),
            spared_ms=full_ms - fmean(answer.milliseconds for answer in early),
        )

    def _scored(
        self, name: str, by_query: Sequence[Mapping[str, _Answer]]
    ) -> tuple[tuple[tuple[Prediction, ...], ...], Scores | None]:
        predictions = tuple(answers[name].predictions if answers else () for answers in by_query)
        positives = self._dataset.positives
        return predictions, None if positives is None else _scores(predictions, positives, self._settings)

    def _predictions(self, candidates: Sequence[Candidate]) -> tuple[Prediction, ...]:
        ordered = (Prediction(self._row_of[candidate.id], candidate.rank_value) for candidate in candidates)
        kept = self._best_of_each_panorama(ordered) if self._settings.one_per_panorama else ordered
        return tuple(kept)[: max(self._settings.ranks)]

    def _best_of_each_panorama(self, predictions: Iterable[Prediction]) -> Iterable[Prediction]:
        assert self._dataset.panoramas is not None
        best: dict[int, Prediction] = {}
        for prediction in predictions:
            best.setdefault(int(self._dataset.panoramas[prediction.row]), prediction)
        return best.values()


def _scores(predictions: Sequence[Sequence[Prediction]], positives: Positives, settings: Settings) -> Scores:
    rows = [[prediction.row for prediction in best] for best in predictions]
    chosen = counted_queries(positives, settings.denominator)
    answered = [query for query, best in enumerate(predictions) if best]
    return Scores(
        recall=recall_at([rows[query] for query in chosen], [positives[query] for query in chosen], settings.ranks),
        mean_average_precision=mean_average_precision_at(rows, positives, settings.ranks),
        precision_recall=precision_recall(
            [predictions[query][0].score for query in answered],
            [bool(np.isin(rows[query][0], positives[query])) for query in answered],
            sum(right.size > 0 for right in positives),
        ),
    )
