"""Answers as tables to read."""

from collections.abc import Iterator

from vpr_dhe.localization.confidence import confidence_of
from vpr_dhe.localization.search_area import nearby_text
from vpr_dhe.records import Belief, Localization, PositionEstimate, RankedMatch
from vpr_dhe.report.tables.answers import Answer, AnswerSheet
from vpr_dhe.report.tables.coordinate_text import position_text
from vpr_dhe.report.tables.text import text_table
from vpr_dhe.runtime.text import counted, one_line


def answers_table(sheet: AnswerSheet) -> str:
    """A table for each query."""
    return "\n\n".join(_answer_table(answer) for answer in sheet.answers)


def _doubt(localization: Localization) -> str:
    """Reason to doubt the place of an answer; empty without one."""
    if localization.blank:
        return ": unknown place, because the image is blank"
    return ": probably an unknown place" if confidence_of(localization) == "unknown" else ""


def _answer_table(answer: Answer) -> str:
    name = one_line(answer.query)
    query = name if answer.timestamp_s is None else f"{name} at {answer.timestamp_s:.3f} s"
    if answer.localization is None:
        return f"{query}: skipped"  # the command line prints the reason on standard error
    nearby = answer.localization.nearby
    if nearby and not nearby.images:
        return f"{query}: unknown place: {nearby_text(nearby)}"
    if not answer.localization.matches:
        return f"{query}: unknown place{_in_brackets(answer.localization.rejected)}"
    rows = [
        [str(m.rank), m.image, f"{m.similarity:.3f}", *_checked(m), position_text(m.position)]
        for m in answer.localization.matches
    ]
    title = f"{query}{_doubt(answer.localization)}{_in_brackets(answer.localization.matches[0])}"
    table = text_table(["rank", "image", "similarity", "score", "inliers", "position"], rows)
    return "\n".join([title, table, *_conclusions(answer.localization.estimate, answer.belief)])


def _checked(match: RankedMatch) -> tuple[str, str]:
    """Score and inliers of a match; dashes if it was not verified."""
    return ("-", "-") if match.skipped else (f"{match.score:g}", str(match.inliers))


def _in_brackets(best: RankedMatch | None) -> str:
    """Probability of the best match in brackets, if known."""
    return f" (p = {best.probability:.2f})" if best and best.probability is not None else ""


def _conclusions(estimate: PositionEstimate | None, belief: Belief | None) -> Iterator[str]:
    """Position estimate from all matches, and belief from all frames."""
    if estimate is not None:
        yield f"estimated position {position_text(estimate.position)} {uncertainty_text(estimate)}"
    if belief is not None:
        likeliest = "; ".join(f"{place.image} {place.probability:.2f}" for place in belief.places)
        yield f"belief {likeliest or 'in no place'}; unknown {belief.unknown:.2f}"


def uncertainty_text(estimate: PositionEstimate) -> str:
    """Number of matches and uncertainty of an estimated position."""
    longer, shorter = estimate.semi_axes_m
    return (
        f"from {counted(estimate.matches, 'match', 'matches')}; standard deviation {longer:.1f} m along azimuth "
        f"{estimate.orientation_deg:.0f} degrees, {shorter:.1f} m across"
    )


def probability_text(match: RankedMatch | None) -> str:
    """Probability of a match; empty if it has none."""
    return f"{match.probability:.6f}" if match and match.probability is not None else ""
