"""Formats that are written query by query."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from vpr_dhe.report.tables.answers import Answer


@dataclass(frozen=True)
class LineFormat:
    """Format that writes queries independently, in any number of lines, after an optional header.

    `left_out` yields, for each line that the format cannot represent, the offending name.
    """

    lines: Callable[[Answer], Iterator[str]]
    header: str | None = None
    left_out: Callable[[Answer], Iterator[str]] = lambda _: iter(())
