"""Results of an evaluation as a table and as a JSON document."""

import json
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from vpr_dhe.evaluation.demo import Demo
from vpr_dhe.evaluation.place_evaluation import EXTRACTED, RETRIEVAL, EarlyStop, EvaluationResult, MethodResult, Scores
from vpr_dhe.evaluation.provenance import Provenance
from vpr_dhe.evaluation.recall import Denominator
from vpr_dhe.report.tables.adaptation import adaptation_document, adaptation_lines, adaptation_summary
from vpr_dhe.report.tables.coordinate_text import position_text
from vpr_dhe.report.tables.text import text_table
from vpr_dhe.runtime.text import counted

_COUNTED = {
    Denominator.all: "of all queries",
    Denominator.with_positive: "of the queries with a positive",
}
_LABELS = {RETRIEVAL: RETRIEVAL, EXTRACTED: "retrieval as extracted"}
_RECALL, _PRECISION = "R@{}", "mAP@{}"


def evaluation_table(result: EvaluationResult) -> str:
    """Table of retrieval and every verifier, with the data set and notes."""
    return "\n".join([_title(result), *_body(result), *footnotes(result)])


def _title(result: EvaluationResult) -> str:
    dataset = result.dataset
    title = (
        f"{dataset.name} ({dataset.protocol}): {counted(len(dataset.database.records), 'database image')}, "
        f"{counted(len(dataset.queries.records), 'query', 'queries')}"
    )
    if result.num_queries_with_positive is not None:
        title += f", {result.num_queries_with_positive} of them with a positive"
    return f"{title}; model {result.model}, local maps {result.codec}"


def _body(result: EvaluationResult) -> list[str]:
    if result.retrieval.scores is None:
        return ["the ground truth of these queries is not public, so there are no figures"]
    header, *rows = method_table(result)
    return [scores_note(result), text_table(header, rows)]


def method_table(result: EvaluationResult) -> list[list[str]]:
    """Header, then one row of figures for retrieval and for each verifier."""
    last = max(result.settings.ranks)
    header = [
        "",
        *(_RECALL.format(rank) for rank in result.settings.ranks),
        _PRECISION.format(last),
        "AUC-PR",
        "R@100%P",
        "ms/query",
    ]
    rows = [
        [label, *_percentages(found.scores, last), f"{result.total_ms(found):.0f}"]
        for method in result.methods
        for label, found in _labelled(method, result.settings.rerank)
        if found.scores is not None
    ]
    return [header, *rows]


def scores_note(result: EvaluationResult) -> str:
    """Note about the denominators of the percentages."""
    note = f"recall in % {_COUNTED[result.settings.denominator]}"
    if result.settings.denominator is not Denominator.with_positive:
        note += f"; mAP, AUC-PR and R@100%P {_COUNTED[Denominator.with_positive]}"
    if result.settings.one_per_panorama:
        note += ", one prediction per panorama"
    return note


def _labelled(method: MethodResult, rerank: int) -> Iterator[tuple[str, MethodResult | EarlyStop]]:
    """A method, and the same with an early stop, each with its label."""
    label = _LABELS.get(method.name, f"{method.name}, top {rerank}")
    yield label, method
    if method.early_stop:
        yield f"{label}, early stop", method.early_stop


def _percentages(scores: Scores, last: int) -> list[str]:
    curve = scores.precision_recall
    return [
        *(f"{value:.1f}" for value in scores.recall.values()),
        f"{scores.mean_average_precision[last]:.1f}",
        *([f"{curve.area:.1f}", f"{curve.recall_at_full_precision:.1f}"] if curve else ["-", "-"]),
    ]


def footnotes(result: EvaluationResult) -> list[str]:
    """Sentences about times, queries without a positive, and unreadable images."""
    notes = [
        f"medians in ms: decode and extract {result.extract_ms:.0f}, search {result.retrieval.median_ms:.1f}"
        + "".join(f", {method.name} {method.median_ms:.0f}" for method in result.verifiers)
    ]
    notes += [
        f"{method.name} with an early stop at a margin of {result.settings.stop_early:g}: "
        f"{stop.share_verified:.0f} % of the candidates verified, {stop.spared_ms:.0f} ms spared per query on average"
        for method in result.verifiers
        if (stop := method.early_stop)
    ]
    if result.adaptation:
        notes.append(f"retrieval {adaptation_summary(result.adaptation)} of the database")
    unanswerable = _queries_without_positive(result)
    if unanswerable:
        effect = "counted as missed" if result.settings.denominator is Denominator.all else "left out of recall"
        queries = counted(len(unanswerable), "query", "queries")
        notes.append(f"{queries} without a positive in the database, such as {unanswerable[0]}: {effect}")
    if result.unreadable_queries:
        queries = counted(len(result.unreadable_queries), "query", "queries")
        notes.append(f"{queries} could not be read, so counted as missed")
    if result.unreadable_database:
        images = counted(len(result.unreadable_database), "database image")
        notes.append(f"{images} could not be read, so never found")
    return notes


def _queries_without_positive(result: EvaluationResult) -> list[str]:
    positives = result.dataset.positives
    if positives is None:
        return []
    queries = zip(result.dataset.queries.records, positives, strict=True)
    return [record.path for record, right in queries if not right.size]


def evaluation_document(result: EvaluationResult, provenance: Provenance) -> dict[str, Any]:
    """Results document written by `vpr-dhe evaluate --out`.

    `recall.reranked` and `verifier` refer to the first verifier, `methods` to all.
    """
    first = result.verifiers[0] if result.verifiers else result.retrieval
    settings, dataset = result.settings, result.dataset
    return {
        "dataset": dataset.name,
        "model": result.model,
        "verifier": first.name if result.verifiers else "none",
        "rerank": settings.rerank if result.verifiers else 0,
        "rank_by": settings.rank_by,
        "stop_early": settings.stop_early,
        "protocol": dataset.protocol,
        "num_database": len(dataset.database.records),
        "num_queries": len(dataset.queries.records),
        "num_queries_with_positive": result.num_queries_with_positive,
        "denominator": settings.denominator.value,
        "denominator_of_other_figures": Denominator.with_positive.value,
        "one_per_panorama": settings.one_per_panorama,
        "recall": {
            "retrieval": _recall(result.retrieval),
            "reranked": _recall(first),
            **({"extracted": _recall(result.extracted)} if result.extracted else {}),
        },
        "adaptation": adaptation_document(result.adaptation),
        "methods": [_method_document(method, result.total_ms(method)) for method in result.methods],
        "timing_ms": {
            "extract": result.extract_ms,
            "search": result.retrieval.median_ms,
            "rerank": first.median_ms if result.verifiers else 0.0,
        },
        "codec": result.codec,
        "index_type": result.index_type,
        "unreadable": {
            "database": [image.path for image in result.unreadable_database],
            "queries": [image.path for image in result.unreadable_queries],
        },
        **asdict(provenance),
    }


def _recall(method: MethodResult | EarlyStop) -> dict[str, float] | None:
    return None if method.scores is None else _by_rank(method.scores.recall)


def _method_document(method: MethodResult, total_ms: float) -> dict[str, Any]:
    scores = method.scores
    curve = scores.precision_recall if scores else None
    return {
        "name": method.name,
        "recall": _recall(method),
        "mean_average_precision": _by_rank(scores.mean_average_precision) if scores else None,
        "area_under_precision_recall": curve.area if curve else None,
        "recall_at_full_precision": curve.recall_at_full_precision if curve else None,
        "median_ms": method.median_ms,
        "total_ms": total_ms,
        "early_stop": _early_stop_document(method.early_stop),
    }


def _early_stop_document(stop: EarlyStop | None) -> dict[str, Any] | None:
    if stop is None:
        return None
    return {
        "recall": _recall(stop),
        "mean_average_precision": _by_rank(stop.scores.mean_average_precision) if stop.scores else None,
        "share_verified": stop.share_verified,
        "median_ms": stop.median_ms,
        "spared_ms": stop.spared_ms,
    }


def _by_rank(values: dict[int, float]) -> dict[str, float]:
    return {str(rank): value for rank, value in values.items()}


def write_document(document: dict[str, Any], path: Path) -> None:
    """Write a document as strictly valid JSON."""
    path.write_text(json.dumps(document, indent=2, allow_nan=False) + "\n", encoding="utf-8")


def demo_table(demo: Demo) -> str:
    """Table of a few queries, then the evaluation of all."""
    rows = [
        [
            position_text(answer.query.position),
            position_text(answer.match.position),
            str(answer.match.inliers),
            f"{answer.distance_m:.1f} m",
            "right" if answer.right else "wrong",
        ]
        for answer in demo.answers
    ]
    sample = text_table(["query was taken at", "best match was taken at", "inliers", "distance", "result"], rows)
    adaptation = "\n".join(adaptation_lines(demo.adaptation))
    return f"{sample}\n\n{adaptation}\n\n{evaluation_table(demo.result)}\nall in {demo.seconds:.0f} s"
