"""CSV files of MSLS."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Bool, Int64

from vpr_dhe.errors import DatasetError
from vpr_dhe.runtime.text import number_or_nan

if TYPE_CHECKING:
    import pandas as pd

KEY = "key"
"""Column with the name of the image."""


@dataclass(frozen=True)
class Table:
    """Columns of one CSV file as text; row 0 is line 2 of the file."""

    path: Path
    cells: "pd.DataFrame"

    def text(self, column: str, rows: Int64[np.ndarray, " kept"]) -> list[str]:
        """Cells of some rows."""
        return self.cells[column].iloc[rows].tolist()

    def numbers(self, column: str, rows: Int64[np.ndarray, " kept"]) -> list[float]:
        """Cells of some rows as finite numbers.

        Raises:
            DatasetError: if a cell is not a finite number.
        """
        cells = self.text(column, rows)
        found = [number_or_nan(cell) for cell in cells]
        for row, cell, value in zip(rows.tolist(), cells, found, strict=True):
            if not math.isfinite(value):
                raise self._unreadable(row, column, cell, "a number of metres")
        return found

    def equals(self, column: str, value: bool) -> Bool[np.ndarray, " rows"]:
        """Mask of rows with the given value, True or False; an empty cell is neither.

        Raises:
            DatasetError: if a cell is neither True, False nor empty.
        """
        cells = self.cells[column].str.strip().str.lower()
        unreadable = np.flatnonzero(~cells.isin(["true", "false", ""]).to_numpy(dtype=bool))
        if unreadable.size:
            row = int(unreadable[0])
            raise self._unreadable(row, column, self.cells[column].iloc[row], "True or False")
        return (cells == str(value).lower()).to_numpy(dtype=bool)

    def require_keys_once(self) -> None:
        """Check that the keys are present and unique.

        Raises:
            DatasetError: if not.
        """
        keys = self.cells[KEY]
        wrong = np.flatnonzero((keys.duplicated() | (keys == "")).to_numpy(dtype=bool))
        if not wrong.size:
            return
        row = int(wrong[0])
        if not keys.iloc[row]:
            raise self._unreadable(row, KEY, "", "the name of an image without .jpg")
        first = int(np.flatnonzero((keys == keys.iloc[row]).to_numpy(dtype=bool))[0])
        raise DatasetError(
            f"{self.path}: lines {first + 2} and {row + 2} have the same key {keys.iloc[row]}; expected one row for "
            "each image; extract metadata.zip of MSLS again"
        )

    def require_same_rows(self, other: "Table") -> None:
        """Check that both tables list the same images; if the other has no keys, only lengths are compared.

        Raises:
            DatasetError: if not.
        """
        if len(self.cells) != len(other.cells):
            raise DatasetError(
                f"{self.path} has {len(self.cells)} rows and {other.path.name} next to it {len(other.cells)}; expected "
                "one row for each image in both; extract metadata.zip of MSLS again"
            )
        if KEY not in other.cells:
            return
        different = np.flatnonzero(self.cells[KEY].to_numpy() != other.cells[KEY].to_numpy())
        if different.size:
            row = int(different[0])
            raise DatasetError(
                f"line {row + 2} of {self.path} is about {self.cells[KEY].iloc[row]}, but of {other.path.name} beside "
                f"it about {other.cells[KEY].iloc[row]}; expected the same images in the same order in both; extract "
                "metadata.zip of MSLS again"
            )

    def _unreadable(self, row: int, column: str, cell: str, expected: str) -> DatasetError:
        return DatasetError(
            f"{self.path}, line {row + 2}, column {column}: found {cell!r}; expected {expected}; extract metadata.zip "
            "of MSLS again"
        )


def read_table(path: Path, columns: tuple[str, ...], optional: str = "") -> Table:
    """Read columns of a file, and an optional one if it has it.

    Raises:
        DatasetError: if the file cannot be read, or lacks one of the columns.
    """
    # Imported here because it takes a second, and queries need no tables.
    import pandas as pd

    wanted = {*columns, optional}
    try:
        cells = pd.read_csv(
            path, usecols=lambda name: name in wanted, dtype=str, na_filter=False, index_col=False, encoding="utf-8-sig"
        )
    except FileNotFoundError:
        raise DatasetError(
            f"{path} does not exist; expected the tables beside images, as in metadata.zip of MSLS; extract that "
            f"into {path.parents[3]}"
        ) from None
    except (OSError, ValueError) as error:
        raise DatasetError(
            f"{path} cannot be read as a table ({' '.join(str(error).split())}); expected columns "
            f"{', '.join(columns)}; extract metadata.zip of MSLS again"
        ) from None
    for column in columns:
        if column not in cells:
            raise DatasetError(
                f"{path} has no column {column}; expected {', '.join(columns)} in its first line; extract metadata.zip "
                "of MSLS again"
            )
    return Table(path, cells)
