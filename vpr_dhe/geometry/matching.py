"""Mutual nearest neighbours of descriptor sets, batched over candidates."""

# Tensor.unflatten and torch.ops are not typed; the signatures here state their types.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int8, Int32, Int64
from torch import Tensor

from vpr_dhe.runtime.cpu_features import has_integer_products
from vpr_dhe.runtime.threads import ScratchMemory, in_parallel, on_one_core

# Candidates per task of a thread, or fewer if there are many threads. Larger tasks wait less often for the GIL.
# Torch's own threads are avoided, because they keep spinning for milliseconds on cores that are needed.
_CANDIDATES_PER_TASK = 16
# A task has more candidates with small maps, up to this number of products.
_PRODUCTS_PER_TASK = 1 << 21
_TASKS_PER_THREAD = 4
# 1 GB of products: all candidates at once with usual maps, four with the 7,921 cells of FoL.
_PRODUCTS_ON_GPU = 1 << 28
# Pairs of cells per product: 1 MB, so that products are still in a core's cache when they are read.
_PRODUCTS_AT_ONCE = 1 << 18
# Minimum number of cells for which copying a map without its empty cells pays off. Maps of FoL have 7,921 cells, half
# of them empty.
_LARGE_MAP = 1152
_INT8_PEAK = 127
# Sums of this many products of 8-bit integers are below 2^24, up to which float32 represents all integers exactly.
_MAX_EXACT_DIMENSION = 2**24 // _INT8_PEAK**2
_MIN_PEAK = 1e-30
_products = ScratchMemory()


@dataclass(frozen=True)
class MutualNeighbours:
    """Nearest candidate descriptor of each query descriptor, whether they are mutual nearest, and their similarity."""

    index: Int64[Tensor, "candidates query_cells"]
    mutual: Bool[Tensor, "candidates query_cells"]
    similarity: Float[Tensor, "candidates query_cells"]


def mutual_nearest_neighbours(
    query: Float[Tensor, "query_cells dimension"], candidates: Float[Tensor, "candidates cells dimension"]
) -> MutualNeighbours:
    """Match unit-norm descriptors of one query with those of many candidates by cosine.

    The result has a fixed shape with a mask, which needs no synchronisation with the device. Descriptors of zero norm
    (empty cells) have no match: similarity is 0 and mutual is False. Matches are one-to-one; ties go to the first. On a
    CPU, empty cells of large maps are skipped.
    """
    return match_in_parts(query, len(candidates), candidates.__getitem__)


def match_in_parts(
    query: Float[Tensor, "query_cells dimension"],
    count: int,
    part: Callable[[slice], Float[Tensor, "candidates cells dimension"]],
    *,
    eight_bits: bool = False,
) -> MutualNeighbours:
    """Match as `mutual_nearest_neighbours` does with `count` candidates, of which `part` returns slices on demand.

    With `eight_bits`, descriptors are rounded to 8-bit integers on a CPU, which is faster on processors with
    instructions for their products; other processors give the same matches. Meant for descriptors stored with this
    precision.
    """
    filled = _filled_rows(query)
    rows = query if filled is None else query[filled]
    multiplication = _multiplication(rows, eight_bits=eight_bits and query.device.type == "cpu")
    with torch.inference_mode(mode=False):  # threads could not write to inference tensors
        index, mutual, similarity = (
            torch.zeros(count, len(query), dtype=dtype, device=query.device)
            for dtype in (torch.int64, torch.bool, query.dtype)
        )
    matched = MutualNeighbours(index, mutual, similarity)
    cells = slice(None) if filled is None else filled

    def match(which: slice) -> None:
        found = _match(part(which), multiplication)
        matched.index[which, cells], matched.mutual[which, cells] = found.index, found.mutual
        matched.similarity[which, cells] = found.similarity

    length = _candidates_per_task(count, len(query), query.device)
    parts = [slice(first, min(first + length, count)) for first in range(0, count, length)]
    if query.device.type == "cpu":
        in_parallel(match, parts)
    else:  # products of several parts at once would exceed the memory that one may take
        for part_of_candidates in parts:
            match(part_of_candidates)
    return matched


def _filled_rows(
    rows: Float[Tensor, "cells dimension"] | Int8[Tensor, "cells dimension"],
) -> Int64[Tensor, " filled"] | None:
    """Indices of the nonzero rows of a large map; None if all rows are to be multiplied.

    On a GPU, all rows are multiplied, because counting the nonzero rows would need synchronisation.
    """
    if rows.device.type != "cpu" or len(rows) < _LARGE_MAP:
        return None
    filled = rows.any(dim=1).nonzero().squeeze(1)
    return filled if 0 < len(filled) < len(rows) else None


def _candidates_per_task(count: int, query_cells: int, device: torch.device) -> int:
    if device.type != "cpu":  # a GPU is fastest with one large batch, as far as its memory goes
        return max(1, min(count, _PRODUCTS_ON_GPU // max(1, query_cells) ** 2))
    most = max(_CANDIDATES_PER_TASK, _PRODUCTS_PER_TASK // max(1, query_cells) ** 2)
    threads = torch.get_num_threads()
    return max(1, min(most, -(-count // (_TASKS_PER_THREAD * threads if threads > 1 else 1))))


Products = Float[Tensor, "query_cells columns"] | Int32[Tensor, "query_cells columns"]
Columns = Float[Tensor, "candidates cells dimension"] | Int8[Tensor, "candidates cells dimension"]


class _Multiplication(ABC):
    """Multiplication of the cells of one query with those of candidates."""

    query_cells: int

    @abstractmethod
    def prepare(
        self, candidates: Float[Tensor, "candidates cells dimension"]
    ) -> tuple[Columns, Float[Tensor, "candidates 1"]]:
        """Convert candidates to factors, and return the unit of the products for each candidate."""

    @abstractmethod
    def products(self, columns: Columns) -> Products:
        """Multiply the query's cells with all cells of candidates; on a CPU, the next call overwrites the result."""


def _multiplication(query: Float[Tensor, "query_cells dimension"], *, eight_bits: bool) -> _Multiplication:
    if not eight_bits:
        return _FloatMultiplication(query)
    return on_one_core(_Int8Multiplication if has_integer_products(query.device) else _RoundedMultiplication, query)


class _FloatMultiplication(_Multiplication):
    def __init__(self, query: Float[Tensor, "query_cells dimension"]) -> None:
        self._query, self.query_cells = query, len(query)

    def prepare(
        self, candidates: Float[Tensor, "candidates cells dimension"]
    ) -> tuple[Columns, Float[Tensor, "candidates 1"]]:
        return candidates, candidates.new_ones(len(candidates), 1)

    def products(self, columns: Columns) -> Products:
        flat = columns.flatten(0, 1)
        return torch.mm(self._query, flat.T, out=_scratch(self._query, flat, self._query.dtype))


class _Int8Multiplication(_Multiplication):
    def __init__(self, query: Float[Tensor, "query_cells dimension"]) -> None:
        rows, self._unit = _to_int8(query[None])
        self._rows, self.query_cells = rows[0], len(query)

    def prepare(
        self, candidates: Float[Tensor, "candidates cells dimension"]
    ) -> tuple[Columns, Float[Tensor, "candidates 1"]]:
        columns, units = _to_int8(candidates)
        return columns, units * self._unit

    def products(self, columns: Columns) -> Products:
        flat = columns.flatten(0, 1)
        return torch.ops.aten._int_mm(self._rows, flat.T, out=_scratch(self._rows, flat, torch.int32))


class _RoundedMultiplication(_Int8Multiplication):
    """Products of 8-bit integers in floating point, which represents them and their sums exactly."""

    def __init__(self, query: Float[Tensor, "query_cells dimension"]) -> None:
        super().__init__(query)
        self._dtype = torch.float32 if query.shape[1] <= _MAX_EXACT_DIMENSION else torch.float64
        self._factors = self._rows.to(self._dtype)

    def prepare(
        self, candidates: Float[Tensor, "candidates cells dimension"]
    ) -> tuple[Columns, Float[Tensor, "candidates 1"]]:
        columns, units = super().prepare(candidates)
        return columns.to(self._dtype), units

    def products(self, columns: Columns) -> Products:
        flat = columns.flatten(0, 1)
        return torch.mm(self._factors, flat.T, out=_scratch(self._factors, flat, self._dtype))


def _scratch(rows: Tensor, columns: Tensor, dtype: torch.dtype) -> Tensor | None:
    return _products.tensor((len(rows), len(columns)), dtype) if rows.device.type == "cpu" else None


@torch.no_grad()
def _match(
    candidates: Float[Tensor, "candidates cells dimension"], multiplication: _Multiplication
) -> MutualNeighbours:
    columns, units = multiplication.prepare(candidates)
    if columns.device.type == "cpu" and columns.shape[1] >= _LARGE_MAP:
        parts = [_largest_of_filled(column, multiplication) for column in columns.split(1)]
    else:
        parts = [_largest(columns, multiplication)]
    index, best, best_back = parts[0] if len(parts) == 1 else (torch.cat(one) for one in zip(*parts, strict=True))
    # Products of one candidate share a unit, so they can be compared without it.
    agreed = (best == best_back.gather(1, index)) & (best > 0)
    return MutualNeighbours(
        index, agreed & _comes_first(index, agreed, best_back.shape[1]), best.to(units.dtype) * units
    )


def _largest(columns: Columns, multiplication: _Multiplication) -> tuple[Tensor, Tensor, Tensor]:
    """Index and value of the largest product of each query cell, and the largest product of each candidate cell."""
    if columns.device.type == "cpu" and columns.dtype in (torch.float32, torch.int8):
        return _largest_by_numpy(columns, multiplication)
    products = multiplication.products(columns).unflatten(1, columns.shape[:2])
    index = products.argmax(dim=2)
    return index.T, products.gather(2, index[..., None]).squeeze(2).T, products.amax(dim=0)


def _largest_by_numpy(columns: Columns, multiplication: _Multiplication) -> tuple[Tensor, Tensor, Tensor]:
    """As `_largest`, block by block with NumPy, whose argmax and maximum are faster than torch's on a CPU."""
    (count, cells), rows = columns.shape[:2], multiplication.query_cells
    dtype = np.float32 if columns.dtype == torch.float32 else np.int32
    index, best, back = (
        np.empty((count, rows), np.int64),
        np.empty((count, rows), dtype),
        np.empty((count, cells), dtype),
    )
    length = max(1, _PRODUCTS_AT_ONCE // (rows * cells))
    for first in range(0, count, length):
        rows_of_block = slice(first, first + length)
        block = columns[rows_of_block]
        products = multiplication.products(block).numpy()
        products.max(axis=0, out=back[rows_of_block].reshape(-1))
        largest = products.reshape(rows, len(block), cells).argmax(axis=2)
        index[rows_of_block] = largest.T
        starts = np.arange(0, products.size, cells).reshape(largest.shape)
        best[rows_of_block] = products.reshape(-1).take(starts + largest).T
    return torch.from_numpy(index), torch.from_numpy(best), torch.from_numpy(back)


def _largest_of_filled(columns: Columns, multiplication: _Multiplication) -> tuple[Tensor, Tensor, Tensor]:
    """As `_largest` for one map, without the products of its empty cells, which are zero."""
    filled = _filled_rows(columns[0])
    if filled is None:
        return _largest(columns, multiplication)
    index, best, back = _largest(columns[:, filled], multiplication)
    index, best_back = filled[index], best.new_zeros(1, columns.shape[1])
    best_back[:, filled] = back
    # A query cell with only negative products is nearest to the first empty cell.
    empty = best < 0
    first_empty = int((~columns[0].any(dim=1)).nonzero()[0, 0])
    tied = (best == 0) & (index > first_empty)
    return torch.where(empty | tied, first_empty, index), best.clamp(min=0), best_back


def _comes_first(
    index: Int64[Tensor, "candidates query_cells"], agreed: Bool[Tensor, "candidates query_cells"], cells: int
) -> Bool[Tensor, "candidates query_cells"]:
    """Mask of the first query cell among those matched to the same cell, which happens only with ties."""
    query_cells = index.shape[1]
    if index.device.type == "cpu":
        own = np.flatnonzero(agreed.numpy())
        cell = own // query_cells * cells + index.numpy().reshape(-1)[own]
        # The last of several assignments to one cell persists, which is that of the first query cell.
        first_of = np.empty(len(index) * cells, np.int64)
        first_of[cell[::-1]] = own[::-1]
        comes_first = np.zeros(index.shape, np.bool_)
        comes_first.reshape(-1)[own] = first_of[cell] == own
        return torch.from_numpy(comes_first)
    own = torch.arange(query_cells, device=index.device).expand_as(index)
    first = own.new_full((len(index), cells), query_cells)
    first.scatter_reduce_(1, index, torch.where(agreed, own, query_cells), "amin")
    return first.gather(1, index) == own


def _to_int8(
    maps: Float[Tensor, "maps cells dimension"],
) -> tuple[Int8[Tensor, "maps cells dimension"], Float[Tensor, "maps 1"]]:
    """Quantise each map with its own scale, so that results do not depend on the batch."""
    peaks = torch.maximum(maps.amax(dim=(1, 2)), -maps.amin(dim=(1, 2)))
    units = peaks.clamp(min=_MIN_PEAK)[:, None] / _INT8_PEAK
    return (maps / units[..., None]).round_().to(torch.int8), units
