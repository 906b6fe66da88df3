"""Concatenation of arrays of vectors without copying."""

from collections.abc import Callable, Iterator, Sequence
from itertools import accumulate
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Int64, Shaped

_BLOCK_ROWS = 16384


@runtime_checkable
class FileRows(Protocol):
    """Vectors, or binary codes, to put into a FAISS file."""

    def __len__(self) -> int: ...

    def take(self, rows: Int64[np.ndarray, " chosen"]) -> Shaped[np.ndarray, "chosen dimension"]:
        """Copy some rows."""
        ...

    def blocks(self) -> Iterator[Shaped[np.ndarray, "_count dimension"]]:
        """Copy all rows in order, block by block."""
        ...

    def probes(self, rows: Int64[np.ndarray, " chosen"]) -> Shaped[np.ndarray, "chosen dimension"]:
        """Make queries for the images of some rows."""
        ...


class Stack:
    """Concatenated rows of arrays of one type, which may be mapped from files."""

    def __init__(self, arrays: Sequence[Shaped[np.ndarray, "_count dimension"]]) -> None:
        self._arrays = arrays
        self._starts = np.array([0, *accumulate(len(array) for array in arrays)])

    def __len__(self) -> int:
        return int(self._starts[-1])

    @property
    def dimension(self) -> int:
        """Length of a vector."""
        return self._arrays[0].shape[1]

    def take(self, rows: Int64[np.ndarray, " chosen"]) -> Shaped[np.ndarray, "chosen dimension"]:
        """Copy some rows."""
        empty = np.empty((len(rows), self.dimension), self._arrays[0].dtype)
        return take_rows(rows, self._starts, empty, lambda number, chosen: self._arrays[number][chosen])

    def probes(self, rows: Int64[np.ndarray, " chosen"]) -> Shaped[np.ndarray, "chosen dimension"]:
        """Copy some rows, which are queries as they are."""
        return self.take(rows)

    def blocks(self) -> Iterator[Shaped[np.ndarray, "_count dimension"]]:
        """Copy all rows in order, block by block."""
        for start in range(0, len(self), _BLOCK_ROWS):
            yield self.take(np.arange(start, min(start + _BLOCK_ROWS, len(self))))


def take_rows(
    rows: Int64[np.ndarray, " chosen"],
    starts: Int64[np.ndarray, " _arrays"],
    taken: Shaped[np.ndarray, "chosen dimension"],
    read: Callable[[int, Int64[np.ndarray, " _rows"]], Shaped[np.ndarray, "_rows dimension"]],
) -> Shaped[np.ndarray, "chosen dimension"]:
    """Copy rows of concatenated arrays.

    Args:
        rows: numbers of rows, in any order.
        starts: number of each array's first row.
        taken: array to copy to, unless all rows are those of one array.
        read: reads rows of one array, given the number of the array and those of the rows in it.
    """
    if len(starts) == 2:
        return read(0, rows)
    owners = np.searchsorted(starts, rows, side="right") - 1
    for owner in np.unique(owners).tolist():
        here = owners == owner
        taken[here] = read(owner, rows[here] - starts[owner])
    return taken
