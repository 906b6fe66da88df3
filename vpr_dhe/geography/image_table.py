"""Tables about images: a header line, then rows; commas, semicolons or tabs between cells, text in UTF-8.

Columns are told by their names, whatever their case, blanks around names and cells apart. Of several columns for one
thing, the name that a form lists first counts; columns of other names are ignored.
"""

import itertools
import posixpath
from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import numpy as np
from jaxtyping import Int64

from vpr_dhe.errors import BadInputError

if TYPE_CHECKING:
    import pandas as pd

_T = TypeVar("_T")
_SEPARATORS = (",", ";", "\t")


@dataclass(frozen=True)
class TableForm:
    """What one kind of table looks like, and how to speak of it.

    Args:
        kind: what such a table is called.
        columns: for each column of use, the names that it may have.
        suffices: whether these columns are enough.
        expected: which columns there should be, in words.
        row: what there should be a row for, in words.
        error: what a mistake in the table is.
    """

    kind: str
    columns: Mapping[str, tuple[str, ...]]
    suffices: Callable[[Set[str]], bool]
    expected: str
    row: str
    error: type[BadInputError]


@dataclass(frozen=True)
class Sheet:
    """The cells of the columns in use, as text without blanks around it.

    `lines` are the line numbers of the rows in the file, the header's being 1; `titles` are the file's names for the
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
        """What `parse` makes of each cell of a column: None of empty ones, and where the file has no such column.

        Raises:
            BadInputError: if `parse` raises ValueError, whose message says what was expected.
        """
        cells = self.columns.get(column) or itertools.repeat("", len(self.lines))
        for line, cell in zip(self.lines, cells, strict=True):
            try:
                value = parse(cell) if cell else None
            except ValueError as error:
                raise self.complaint(line, column, f"found {cell!r}; expected {error}") from None
            yield value

    def complaint(self, line: int, column: str, what: str) -> BadInputError:
        """The error of one cell."""
        return self.form.error(f"{self.path}, line {line}, column {self.titles[column]}: {what}")


def read_sheet(path: Path, form: TableForm) -> Sheet:
    """Read the cells of the columns in use.

    Raises:
        BadInputError: of the form's kind, if the file is missing or no table, lacks a column, or has no rows.
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


def image_path(cell: str) -> str:
    """A path as images are listed: with slashes, and without "./" before it."""
    return posixpath.normpath(cell.replace("\\", "/"))


def paths_by_name(paths: Sequence[str]) -> dict[str, list[str]]:
    """The first two paths that end in each file name, which may be written without its extension."""
    found: dict[str, list[str]] = {}
    for path in paths:
        full_name = posixpath.basename(path)
        for name in {full_name, posixpath.splitext(full_name)[0]}:
            same = found.setdefault(name, [])
            if len(same) < 2:
                same.append(path)
    return found


def _read_table(path: Path, form: TableForm) -> "pd.DataFrame":
    """All cells as text; blank lines are kept as rows, so that rows can be counted into lines.

    Raises:
        BadInputError: if it is no table in UTF-8.
    """
    # Imported here because it takes a second, and a query reads no table.
    import pandas as pd

    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            separator = max(_SEPARATORS, key=file.readline().count)
            file.seek(0)
            table = pd.read_csv(file, sep=separator, dtype=str, na_filter=False, skip_blank_lines=False)
    except UnicodeError:
        raise form.error(f"{path} is not text in UTF-8; save the table as CSV in UTF-8") from None
    except (pd.errors.EmptyDataError, pd.errors.ParserError) as error:
        reason = " ".join(str(error).removeprefix("Error tokenizing data. C error:").split())
        raise form.error(f"{path} is not a table ({reason}); quote cells that hold a separator") from None
    # Where rows are longer than the header, pandas takes their first cells for names and shifts all others.
    if not isinstance(table.index, pd.RangeIndex):
        raise form.error(f"{path} has rows with more cells than its header; quote cells that hold a separator")
    return table


def _line_numbers(table: "pd.DataFrame") -> Int64[np.ndarray, " rows"]:
    """The line of the file on which each row starts, the header's being 1; quoted cells may run over several lines."""
    breaks = np.zeros(len(table), dtype=np.int64)
    for title in table.columns:
        breaks += table[title].str.count("\n").to_numpy(np.int64)
    return np.arange(2, len(table) + 2) + np.cumsum(breaks) - breaks


def _titles(path: Path, form: TableForm, header: Sequence[str]) -> dict[str, str]:
    """The file's name for each column that is of use.

    Raises:
        BadInputError: if the form needs more columns than there are.
    """
    spelling = {title.strip().lower(): title for title in reversed(header)}
    found: dict[str, str] = {}
    for name, synonyms in form.columns.items():
        known = [spelling[synonym] for synonym in synonyms if synonym in spelling]
        found |= {name: known[0]} if known else {}
    if not form.suffices(found.keys()):
        columns = ", ".join(title.strip() for title in header)
        raise form.error(f"{path} has the columns {columns}; expected {form.expected}")
    return found
