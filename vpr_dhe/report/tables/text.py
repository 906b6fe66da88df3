"""Text tables."""

from collections.abc import Sequence

from vpr_dhe.runtime.text import one_line


def text_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Text table with columns padded to their widest cell."""
    rows = [[one_line(cell) for cell in row] for row in rows]
    widths = [max(len(row[column]) for row in [header, *rows]) for column in range(len(header))]
    lines = [header, ["-" * width for width in widths], *rows]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines
    )
