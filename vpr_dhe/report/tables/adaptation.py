"""Adaptation of an index to its map, as text and as JSON."""

from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

from vpr_dhe.index.adaptation.report import AdaptationReport, Trial


def adaptation_document(report: AdaptationReport | None) -> dict[str, Any] | None:
    """JSON object of a report; null if vectors are searched as extracted."""
    return None if report is None else {"steps": list(report.steps), **asdict(report)}


def adaptation_lines(report: AdaptationReport) -> Iterator[str]:
    """Outcome, and one line per trial."""
    yield adaptation_summary(report)
    if report.trials:
        yield (
            f"  as extracted: R@1 {report.recall_at_1:.1f} of {report.queries} images as queries, on places held out"
        )
    yield from (_trial_line(trial) for trial in report.trials)


def adaptation_summary(report: AdaptationReport) -> str:
    """Outcome in one line."""
    if report.steps:
        return f"adapted by {' and '.join(report.steps)}, from {report.pairs} pairs of images by {report.source}"
    return f"vectors are searched as extracted: {_reason(report)}"


def _reason(report: AdaptationReport) -> str:
    if report.source is None:
        return "no positions, times or verified pairs tell which images show one place"
    if not report.trials:
        return f"too few images of {report.images} show a place that others show, too, to test an adaptation"
    return "no step helps beyond chance on held-out places"


def _trial_line(trial: Trial) -> str:
    outcome = "used" if trial.chosen else "not used"
    return (
        f"  {trial.step}: R@1 {trial.recall_at_1:.1f}, reciprocal rank {trial.gain:+.1f} "
        f"(standard error {trial.error:.1f}), {outcome}"
    )
