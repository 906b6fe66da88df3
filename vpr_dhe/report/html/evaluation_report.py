"""Report of an evaluation: figures, curves, a map, and the worst queries.

A run does not keep homographies; those of the few matches shown are estimated again from the same features.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Int64

from vpr_dhe.errors import ImageError
from vpr_dhe.evaluation.place_evaluation import EvaluationResult, MethodResult, Tools
from vpr_dhe.evaluation.provenance import Provenance
from vpr_dhe.evaluation.recall import counted_queries, recall_at
from vpr_dhe.evaluation.reverify import indexed_rows, reverify
from vpr_dhe.geography.coordinates import geo_uri
from vpr_dhe.geography.distance import distance
from vpr_dhe.images.decoding import decode_image
from vpr_dhe.records import Features, Progress, Verification
from vpr_dhe.report.html.charts import Axis, Chart, Curve, line_chart
from vpr_dhe.report.html.match_report import (
    ANSWERED,
    MAX_QUERIES,
    RIGHT,
    UNANSWERABLE,
    UNREAD,
    WRONG,
    Report,
    ShownMatch,
    ShownQuery,
    Table,
    picture_of,
)
from vpr_dhe.report.html.position_map import DATABASE, MAX_DATABASE_SPOTS, PositionMap, Spot, draw_map
from vpr_dhe.report.tables.coordinate_text import position_text
from vpr_dhe.report.tables.evaluation import footnotes, method_table, scores_note
from vpr_dhe.runtime.sampling import evenly_spread
from vpr_dhe.runtime.text import counted

_MATCHES = 3
_ORDER = (WRONG, UNREAD, UNANSWERABLE, ANSWERED, RIGHT)


@dataclass(frozen=True)
class _Judged:
    """Outcome of one query by the reported method, with its number in the data set."""

    number: int
    outcome: str
    remark: str
    score: float

    @property
    def severity(self) -> tuple[int, float]:
        """Sort key, from confident errors to confident correct matches."""
        sure = self.outcome in (WRONG, UNANSWERABLE)
        return _ORDER.index(self.outcome), -self.score if sure else self.score


def evaluation_report(
    result: EvaluationResult, tools: Tools, provenance: Provenance, progress: Progress = lambda _: None
) -> Report:
    """Report an evaluation and the worst queries of its first verifier, or of retrieval without one."""
    method = result.verifiers[0] if result.verifiers else result.retrieval
    judged = [_judge(result, method, number) for number in range(len(method.predictions))]
    worst = sorted(judged, key=lambda one: one.severity)[:MAX_QUERIES]
    shown = []
    for one in worst:
        shown.append(_shown_query(result, method, tools, one))
        progress(1)
    return Report(
        title=f"{result.dataset.name}: {result.model}, {method.name}",
        facts=_facts(result, provenance),
        selection=_selection(method, len(worst), len(judged)),
        queries=tuple(shown),
        table=_table(result),
        charts=_charts(result),
        map=_map(result, method, judged, {one.number for one in worst}),
        notes=tuple(footnotes(result)),
    )


def _selection(method: MethodResult, shown: int, total: int) -> str:
    all_queries = counted(total, "query", "queries")
    queries = f"all {all_queries}" if shown == total else f"the {shown} worst of {all_queries}"
    return f"By {method.name}: {queries}, most confident mistakes first."


def _facts(result: EvaluationResult, provenance: Provenance) -> tuple[tuple[str, str], ...]:
    dataset, machine = result.dataset, provenance.machine
    queries = counted(len(dataset.queries.records), "query", "queries")
    return (
        ("Data set", f"{dataset.name} ({dataset.protocol})"),
        ("Images", f"{len(dataset.database.records)} in the database, {queries}"),
        ("Model", f"{result.model}, local maps {result.codec}"),
        ("Made with", f"vpr-dhe {provenance.version}, seed {provenance.seed}, on {machine.cpu}, {machine.device}"),
    )


def _table(result: EvaluationResult) -> Table | None:
    if result.retrieval.scores is None:
        return None
    header, *rows = method_table(result)
    return Table(header, rows, scores_note(result))


def _charts(result: EvaluationResult) -> tuple[Chart, ...]:
    last, positives = max(result.settings.ranks), result.dataset.positives
    if positives is None:
        return ()
    chosen = counted_queries(positives, result.settings.denominator)
    right = [positives[query] for query in chosen]
    ranks = list(range(1, last + 1))
    recall: list[Curve] = []
    precision: list[Curve] = []
    for method in result.methods:
        rows = [[one.row for one in method.predictions[query]] for query in chosen]
        recall.append(Curve(method.name, [*map(float, ranks)], list(recall_at(rows, right, ranks).values())))
        curve = method.scores.precision_recall if method.scores else None
        if curve:
            precision.append(Curve(method.name, curve.recall.tolist(), curve.precision.tolist()))
    by_rank = Axis("N", 1.0, float(last), [float(rank) for rank in result.settings.ranks])
    by_recall = Axis("recall, %", 0.0, 100.0, [0.0, 20.0, 40.0, 60.0, 80.0, 100.0])
    charts = [line_chart("Recall@N", by_rank, "recall, %", recall)] if last > 1 else []
    charts += [line_chart("Precision and recall", by_recall, "precision, %", precision)] if precision else []
    return tuple(charts)


def _judge(result: EvaluationResult, method: MethodResult, number: int) -> _Judged:
    predictions, positives = method.predictions[number], result.dataset.positives
    if not predictions:
        path = result.dataset.queries.records[number].path
        reasons = {image.path: image.reason for image in result.unreadable_queries}
        return _Judged(number, UNREAD, reasons.get(path, ""), 0.0)
    score = predictions[0].score
    if positives is None:
        return _Judged(number, ANSWERED, "the ground truth is not public", score)
    if not positives[number].size:
        return _Judged(number, UNANSWERABLE, "the database has no right match", score)
    first = _first_right(method, number, positives[number])
    if first == 0:
        return _Judged(number, RIGHT, "", score)
    where = f"none of the first {len(predictions)}" if first is None else f"the first is rank {first + 1}"
    return _Judged(number, WRONG, f"{positives[number].size} right matches, {where}", score)


def _first_right(method: MethodResult, number: int, positives: Int64[np.ndarray, " right"]) -> int | None:
    hits = np.flatnonzero(np.isin([one.row for one in method.predictions[number]], positives))
    return int(hits[0]) if hits.size else None


def _shown_query(result: EvaluationResult, method: MethodResult, tools: Tools, judged: _Judged) -> ShownQuery:
    dataset, id = result.dataset, f"q{judged.number}"
    record = dataset.queries.records[judged.number]
    if judged.outcome == UNREAD:
        return ShownQuery(id, record.path, UNREAD, judged.remark)
    try:
        image = decode_image(dataset.queries.folder / record.path, grey_levels=tools.index.manifest.levels)
    except ImageError as error:
        return ShownQuery(id, record.path, UNREAD, str(error))
    features = tools.extractor.extract([image])[0]
    labels = _rows_to_show(result, method, tools, features, judged)
    verified = reverify(result, method, tools, image, features, list(labels))
    scores = {one.row: one.score for one in method.predictions[judged.number]}
    matches = []
    for row, label in labels.items():
        candidate, verification = dataset.database.records[row], verified.get(row)
        away = distance(record.position, candidate.position)
        facts = (*_match_facts(verification, scores.get(row)), *([away] if away else []))
        picture, fault = picture_of(
            image, dataset.database.folder / candidate.path, verification, tools.index.manifest.levels
        )
        right = None if dataset.positives is None else bool(np.isin(row, dataset.positives[judged.number]))
        where = candidate.position and position_text(candidate.position)
        geo = geo_uri(candidate.position)
        matches.append(ShownMatch(label, candidate.path, facts, right, picture, fault, where, geo))
    return ShownQuery(id, record.path, judged.outcome, judged.remark, tuple(matches))


def _rows_to_show(
    result: EvaluationResult, method: MethodResult, tools: Tools, features: Features, judged: _Judged
) -> dict[int, str]:
    """Indices of the first predictions with labels, and of a positive if no prediction is correct."""
    predictions = method.predictions[judged.number]
    rows = {one.row: f"rank {rank}" for rank, one in enumerate(predictions[:_MATCHES], start=1)}
    positives = () if result.dataset.positives is None else result.dataset.positives[judged.number]
    if not len(positives) or not rows.keys().isdisjoint(map(int, positives)):
        return rows
    first = _first_right(method, judged.number, np.asarray(positives))
    if first is not None:
        return rows | {predictions[first].row: f"rank {first + 1}, the first right one"}
    return rows | {_most_similar(result, tools, features, np.asarray(positives)): "not found: a right one"}


def _most_similar(result: EvaluationResult, tools: Tools, features: Features, rows: Int64[np.ndarray, " rows"]) -> int:
    """Index of the indexed image among `rows` that is most similar to the query."""
    known = indexed_rows(result, tools, rows.tolist())
    if not known:
        return int(rows[0])
    similarities = tools.index.descriptors(list(known.values())) @ features.global_descriptor.cpu().float()
    return list(known)[int(similarities.argmax())]


def _match_facts(verification: Verification | None, score: float | None) -> tuple[str, ...]:
    if verification is None:
        return () if score is None else (f"similarity {score:.3f}",)
    details = verification.details
    inliers = f"{verification.inliers} inliers"
    return (inliers, f"{details.name} {details.value:.3g}") if details else (inliers,)


def _map(
    result: EvaluationResult, method: MethodResult, judged: Sequence[_Judged], shown: set[int]
) -> PositionMap | None:
    """Map of the queries, with lines from wrong ones to the position of their best match."""
    database = result.dataset.database.records
    chosen = evenly_spread(len(database), MAX_DATABASE_SPOTS)
    places = [Spot(one.position, DATABASE, one.path) for one in (database[row] for row in chosen) if one.position]
    spots = []
    for one in sorted(judged, key=lambda one: one.severity, reverse=True):
        record, predictions = result.dataset.queries.records[one.number], method.predictions[one.number]
        if record.position:
            answer = database[predictions[0].row].position if one.outcome == WRONG else None
            link = f"q{one.number}" if one.number in shown else None
            spots.append(Spot(record.position, one.outcome, record.path, link, answer))
    return draw_map([*places, *spots])
