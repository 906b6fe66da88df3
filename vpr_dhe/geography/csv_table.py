"""Tables of images: a header line, then rows, with cells separated by commas, semicolons or tabs.

Text is in UTF-8, or in UTF-16 with a byte order mark. A line `sep=;` before the header, as written by spreadsheets,
gives the separator. Names of columns are case-insensitive; spaces, a leading # and units in brackets, as in `Latitude
[deg]`, are ignored. The first synonym in the form takes precedence; other columns are ignored.
"""

import itertools
import posixpath
import re
from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import numpy as np
from jaxtyping import Int64

from vpr_dhe.errors import BadInputError
from vpr_dhe.images.names import composed, text_encoding

if TYPE_CHECKING:
    import pandas as pd

_T = TypeVar("_T")
_SEPARATORS = (",", ";", "\t")
_SEPARATOR_LINE = re.compile(r'"?sep=(.)"?', re.IGNORECASE)
_UNIT = re.compile(r"\s*[\[(][^\])]*[\])]$")
_NUMBER = re.compile(r"[+-]?[\d.,]*\d")


@dataclass(frozen=True)
class TableForm:
    """Format of a kind of table, with texts for messages.

    Args:
        kind: name of the kind.
        columns: synonyms of each column.
        suffices: whether a set of columns is enough.
        expected: description of the expected columns.
        row: description of a row.
        error: class of errors.
    """

    kind: str
    columns: Mapping[str, tuple[str, ...]]
    suffices: Callable[[Set[str]], bool]
    expected: str
    row: str
    error: type[BadInputError]


@dataclass(frozen=True)
class Sheet:
    """Cells of the known columns of a table, as stripped text.

    `lines` are the line numbers of the rows in the file, from 1 for the header; `titles` are the file's names of the
    columns.
    """

    path: Path
    form: TableForm
    lines: list[int]
    titles: dict[str, str]
    columns: dict[str, list[str]]

    def has(self, *columns: str) -> bool:
        """Whether the file has all these columns."""
        return self.columns.keys() >= set(columns)

    def parsed(self, column: str, parse: Callable[[str], _T]) -> Iterator[_T | None]:
        """Parse the cells of a column; empty cells and missing columns give None.

        Raises:
            BadInputError: if `parse` raises ValueError, whose message states what was expected.
        """
        cells = self.columns.get(column) or itertools.repeat("", len(self.lines))
        for line, cell in zip(self.lines, cells, strict=True):
            try:
                value = parse(cell) if cell else None
            except ValueError as error:
                raise self.cell_error(line, column, f"found {cell!r}; expected {error}") from None
            yield value

    def cell_error(self, line: int, column: str, what: str) -> BadInputError:
        """Make the error of a cell."""
        return self.form.error(f"{self.path}, line {line}, column {self.titles[column]}: {what}")


def read_sheet(path: Path, form: TableForm) -> Sheet:
    """Read a table.

    Raises:
        BadInputError: or the form's subclass, if the file is missing or not a table, lacks a column, or has no rows.
    """
    if not path.is_file():
        found = "is not a file" if path.exists() else "does not exist"
        raise form.error(f"{form.kind} {path} {found}; expected a CSV file with {form.expected}")
    table = _read_table(path, form)
    titles = _titles(path, form, [str(title) for title in table.columns])
    columns = {name: table[title].str.strip() for name, title in titles.items()}
    # Blank lines are rows whose cells are all empty.
    kept = np.logical_or.reduce([column.to_numpy(object) != "" for column in columns.values()])
    if not kept.any():
        raise form.error(f"{path} has no rows; expected one row per {form.row} under the column names")
    return Sheet(
        path,
        form,
        _line_numbers(table)[kept].tolist(),
        {name: title.strip() for name, title in titles.items()},
        {name: column[kept].tolist() for name, column in columns.items()},
    )


class AmbiguousNumberError(ValueError):
    """Number with a comma that may separate decimals or thousands."""


def with_decimal_point(cell: str) -> str:
    """Convert a number with a decimal comma, thousands separators or a typographic minus sign to Python's format.

    Raises:
        AmbiguousNumberError: if a single comma before three digits may be either.
    """
    text = cell.replace("\u2212", "-")
    if re.fullmatch(r"[+-]?\d{1,3}([ \u00a0\u202f']\d{3})+([.,]\d*)?", text):
        text = re.sub(r"[ \u00a0\u202f']", "", text)
        return text.replace(",", ".")
    if re.fullmatch(r"[+-]?[1-9]\d{0,2},\d{3}", text):
        raise AmbiguousNumberError(cell)
    if re.fullmatch(r"[+-]?\d*,\d*", text):
        return text.replace(",", ".")
    if re.fullmatch(r"[+-]?\d{1,3}(,\d{3})+(\.\d*)?", text):
        return text.replace(",", "")
    if re.fullmatch(r"[+-]?\d{1,3}(\.\d{3})+,\d*|[+-]?\d{1,3}(\.\d{3}){2,}", text):
        return text.replace(".", "").replace(",", ".")
    return text


def paths_by_name(paths: Sequence[str]) -> dict[str, list[str]]:
    """First two paths for each file name, in Unicode NFC, with and without its extension."""
    found: dict[str, list[str]] = {}
    for path in paths:
        full_name = composed(posixpath.basename(path))
        for name in {full_name, posixpath.splitext(full_name)[0]}:
            same = found.setdefault(name, [])
            if len(same) < 2:
                same.append(path)
    return found


def _read_table(path: Path, form: TableForm) -> "pd.DataFrame":
    """Read all cells as text; blank lines become rows, so that rows can be mapped to lines.

    The table's `attrs["header_line"]` is the line of its header, from 1.

    Raises:
        BadInputError: if it is not a table in UTF-8 or UTF-16.
    """
    # Imported here because it takes a second, and queries need no tables.
    import pandas as pd

    try:
        with path.open("rb") as file:
            encoding = text_encoding(file.read(2))
        with path.open(encoding=encoding, newline="") as file:
            first = file.readline()
            stated = _SEPARATOR_LINE.fullmatch(first.strip("\r\n"))
            separator = stated[1] if stated else max(_SEPARATORS, key=first.count)
            if not stated:
                file.seek(0)
            table = pd.read_csv(file, sep=separator, dtype=str, na_filter=False, skip_blank_lines=False)
        table.attrs["header_line"] = 2 if stated else 1
    except UnicodeError:
        raise form.error(f"{path} is not text in UTF-8; save the table as CSV in UTF-8") from None
    except (pd.errors.EmptyDataError, pd.errors.ParserError) as error:
        reason = " ".join(str(error).removeprefix("Error tokenizing data. C error:").split())
        raise form.error(f"{path} is not a table ({reason}); quote cells that hold a separator") from None
    # If rows are longer than the header, pandas takes their first cells as row names and shifts the others.
    if not isinstance(table.index, pd.RangeIndex):
        raise form.error(f"{path} has rows with more cells than its header; quote cells that hold a separator")
    return table


def _line_numbers(table: "pd.DataFrame") -> Int64[np.ndarray, " rows"]:
    """Line of the file on which each row starts, from 1 for the header; quoted cells may span several lines."""
    breaks = np.zeros(len(table), dtype=np.int64)
    for title in table.columns:
        breaks += table[title].str.count("\n").to_numpy(np.int64)
    return np.arange(len(table)) + table.attrs["header_line"] + 1 + np.cumsum(breaks) - breaks


def _titles(path: Path, form: TableForm, header: Sequence[str]) -> dict[str, str]:
    """Find the file's names of the known columns.

    Raises:
        BadInputError: if they are not enough for the form.
    """
    spelling = {_UNIT.sub("", title.strip().lstrip("# ")).lower(): title for title in reversed(header)}
    found: dict[str, str] = {}
    for name, synonyms in form.columns.items():
        known = [spelling[synonym] for synonym in synonyms if synonym in spelling]
        found |= {name: known[0]} if known else {}
    if not form.suffices(found.keys()):
        columns = ", ".join(title.strip() for title in header)
        hint = ""
        if any(_NUMBER.fullmatch(title.strip()) for title in header):
            hint = "; if its first line is a row already, add a line with the names of the columns above it"
        raise form.error(f"{path} has the columns {columns}; expected {form.expected}{hint}")
    return found
