"""Formats of answers on the command line: table, JSON, JSON lines, CSV and hloc pairs."""

from collections.abc import Callable, Iterator

from vpr_dhe.geography.coordinates import Coordinates
from vpr_dhe.report.tables.answer_documents import answers_json, json_line
from vpr_dhe.report.tables.answer_tables import answers_table, probability_text
from vpr_dhe.report.tables.answers import Answer, AnswerSheet
from vpr_dhe.report.tables.coordinate_text import axes_of, coordinate_cells, reference_of
from vpr_dhe.report.tables.line_format import LineFormat
from vpr_dhe.report.tables.pair_lists import pair_format
from vpr_dhe.report.tables.text import csv_line, seconds_text

_CSV_COLUMNS = (
    "query",
    "rank",
    "image",
    "similarity",
    "score",
    "inliers",
    "position_x",
    "position_y",
    "position_reference",
    *Coordinates._fields,
    "error",
    "probability",
    "timestamp_s",
)


def _csv_lines(answer: Answer) -> Iterator[str]:
    time = seconds_text(answer.timestamp_s)
    nothing = [""] * (_CSV_COLUMNS.index("error") - 1)
    if answer.localization is None:
        yield csv_line([answer.query, *nothing, answer.error, "", time])
        return
    if not answer.localization.matches:
        yield csv_line([answer.query, *nothing, "", probability_text(answer.localization.rejected), time])
    for match in answer.localization.matches:
        position = (*axes_of(match.position), reference_of(match.position), *coordinate_cells(match.position))
        inliers = "" if match.skipped else match.inliers
        values = [f"{match.similarity:.6f}", f"{match.score:g}", inliers, *position, ""]
        yield csv_line([answer.query, match.rank, match.image, *values, probability_text(match), time])


SHEET_FORMATS: dict[str, Callable[[AnswerSheet], str]] = {"table": answers_table, "json": answers_json}
"""Formats of a whole run as one document."""

LINE_FORMATS = {
    "jsonl": LineFormat(lambda answer: iter([json_line(answer)])),
    "csv": LineFormat(_csv_lines, ",".join(_CSV_COLUMNS)),
    "hloc": pair_format(),
}
"""Formats that are written query by query."""
