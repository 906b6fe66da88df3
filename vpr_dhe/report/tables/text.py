"""Text tables, and cells of tables."""

import csv
import io
from collections.abc import Iterable, Sequence

from vpr_dhe.runtime.text import one_line

_LINE_END = "\r\n"


def csv_line(cells: Iterable[object]) -> str:
    """One row of CSV without line break."""
    text = io.StringIO()
    # Cells are quoted only for the characters of this line end.
    csv.writer(text, lineterminator=_LINE_END).writerow(cells)
    return text.getvalue().removesuffix(_LINE_END)


def seconds_text(seconds: float | None) -> str:
    """Time in seconds with microseconds for a table cell; empty if unknown."""
    return "" if seconds is None else f"{seconds:.6f}"


def text_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Text table with columns padded to their widest cell."""
    rows = [[one_line(cell) for cell in row] for row in rows]
    widths = [max(len(row[column]) for row in [header, *rows]) for column in range(len(header))]
    lines = [header, ["-" * width for width in widths], *rows]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines
    )
