"""Concatenation of arrays of vectors without copying."""

from collections.abc import Iterator, Sequence
from itertools import accumulate

import numpy as np
from jaxtyping import Float32, Int64

_BLOCK_ROWS = 16384


class Stack:
    """Concatenated rows of arrays, which may be mapped from files."""

    def __init__(self, arrays: Sequence[Float32[np.ndarray, "_count dimension"]]) -> None:
        self._arrays = arrays
        self._starts = np.array([0, *accumulate(len(array) for array in arrays)])

    def __len__(self) -> int:
        return int(self._starts[-1])

    @property
    def dimension(self) -> int:
        """Length of a vector."""
        return self._arrays[0].shape[1]

    def take(self, rows: Int64[np.ndarray, " chosen"]) -> Float32[np.ndarray, "chosen dimension"]:
        """Copy some rows."""
        chosen = np.empty((len(rows), self.dimension), np.float32)
        owner = np.searchsorted(self._starts, rows, side="right") - 1
        for number in np.unique(owner):
            here = owner == number
            chosen[here] = self._arrays[number][rows[here] - self._starts[number]]
        return chosen

    def blocks(self) -> Iterator[Float32[np.ndarray, "_count dimension"]]:
        """Copy all rows in order, block by block."""
        for start in range(0, len(self), _BLOCK_ROWS):
            yield self.take(np.arange(start, min(start + _BLOCK_ROWS, len(self))))
