"""Results on image pairs as a table and as a JSON document."""

import math
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from vpr_dhe.evaluation.alignment_metrics import AUC_THRESHOLDS_PX, PCK_THRESHOLDS_PX
from vpr_dhe.evaluation.pair_evaluation import AlignmentResult, AlignmentScores, PairEvaluation, PairScore
from vpr_dhe.evaluation.provenance import Provenance
from vpr_dhe.report.tables.text import text_table
from vpr_dhe.runtime.text import counted

_NONE = "-"
_MAX_FIXED_PX = 1e6
_FOOTER = (
    "AUC, median and PCK are over all pairs, with an infinite error for failed ones; MACE and AEPE are over the\n"
    "others; AEPE and PCK are over the pixels of A that lie inside B"
)


def alignment_table(result: PairEvaluation) -> str:
    """Table of all measures with the methods side by side, overall and for each group of the data set."""
    methods = result.methods
    rows = _measures("", [method.overall for method in methods])
    rows.append(["ms per pair, median", *(f"{method.median_ms:.0f}" for method in methods)])
    for group in methods[0].groups:
        rows += _measures(f"{group}: ", [method.groups[group] for method in methods])
    title = f"{result.dataset} ({result.protocol}): {counted(result.num_pairs, 'pair')}; {result.features}"
    return "\n".join([title, text_table(["", *(method.method for method in methods)], rows), _FOOTER])


def alignment_document(result: PairEvaluation, provenance: Provenance) -> dict[str, Any]:
    """JSON object of the results with their provenance; infinite or undefined values are null."""
    return {
        "dataset": result.dataset,
        "protocol": result.protocol,
        "features": result.features,
        "num_pairs": result.num_pairs,
        "methods": [_method_document(method) for method in result.methods],
        **asdict(provenance),
    }


def _measures(prefix: str, scores: Sequence[AlignmentScores]) -> list[list[str]]:
    """One row per measure, one cell per method."""
    return [
        *(
            [f"{prefix}AUC@{threshold} px, %", *(f"{one.auc_percent[threshold]:.1f}" for one in scores)]
            for threshold in AUC_THRESHOLDS_PX
        ),
        [f"{prefix}MACE, px", *(_pixels(one.mace_px) for one in scores)],
        [f"{prefix}median corner error, px", *(_pixels(one.median_px) for one in scores)],
        [f"{prefix}failed", *(f"{one.failed} of {one.num_pairs}" for one in scores)],
        [f"{prefix}AEPE, px", *(_pixels(one.aepe_px) for one in scores)],
        *(
            [f"{prefix}PCK@{threshold} px, %", *(_percent(one.correct_percent.get(threshold)) for one in scores)]
            for threshold in PCK_THRESHOLDS_PX
        ),
    ]


def _pixels(value: float | None) -> str:
    if value is None:
        return _NONE
    if math.isinf(value):
        return "failed"
    # A wrong horizon gives errors with too many digits for the column.
    return f"{value:.2f}" if value < _MAX_FIXED_PX else f"{value:.0e}"


def _percent(value: float | None) -> str:
    return _NONE if value is None else f"{value:.1f}"


def _method_document(result: AlignmentResult) -> dict[str, Any]:
    return {
        "method": result.method,
        **_scores_document(result.overall),
        "ms_per_pair": result.median_ms,
        "groups": {name: _scores_document(scores) for name, scores in result.groups.items()},
        "pairs": [_pair_document(score) for score in result.pairs],
    }


def _scores_document(scores: AlignmentScores) -> dict[str, Any]:
    return {
        "num_pairs": scores.num_pairs,
        "auc": {str(threshold): percent for threshold, percent in scores.auc_percent.items()},
        "mace_px": scores.mace_px,
        "median_px": _finite(scores.median_px),
        "failed": scores.failed,
        "aepe_px": scores.aepe_px,
        "pck": {str(threshold): percent for threshold, percent in scores.correct_percent.items()},
    }


def _pair_document(score: PairScore) -> dict[str, Any]:
    return {"name": score.name, "corner_error_px": _finite(score.corner_error_px)}


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
