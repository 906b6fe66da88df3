"""Mutual nearest neighbours of descriptor sets, batched over candidates."""

# Tensor.unflatten and torch.ops carry no types, and what they return is stated by the signatures here.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int8, Int32, Int64
from torch import Tensor

from vpr_dhe.runtime.cpu_features import has_integer_products
from vpr_dhe.runtime.threads import KeptMemory, in_parallel, on_one_core

# A thread is given so many candidates at once, or fewer where there are more threads: after every operation it waits
# for Python's lock, the more often the shorter they are. What is done to many is done in these threads: torch's own,
# among which it shares out large operations elsewhere, spin for milliseconds afterwards on the cores that are needed.
_GIVEN_TOGETHER = 12
_PARTS_PER_THREAD = 4
# It multiplies so many pairs of cells at once, those of four maps of 24 x 24: their products are read again from the
# cache that they were written to.
_MULTIPLIED_TOGETHER = 4 * 576**2
_INT8_PEAK = 127
_MIN_PEAK = 1e-30
_products = KeptMemory()


@dataclass(frozen=True)
class MutualNeighbours:
    """For every query descriptor its nearest candidate descriptor, and whether each is the other's nearest."""

    index: Int64[Tensor, "candidates query_cells"]
    mutual: Bool[Tensor, "candidates query_cells"]
    similarity: Float[Tensor, "candidates query_cells"]


def mutual_nearest_neighbours(
    query: Float[Tensor, "query_cells dimension"], candidates: Float[Tensor, "candidates cells dimension"]
) -> MutualNeighbours:
    """Match unit-norm descriptors of one query with those of many candidates by cosine.

    The result has a fixed shape with a mask, so nothing here waits for the device. A descriptor of zero norm (a cell
    that says nothing) is matched with nobody: its similarity is 0 and mutual is False. Matches are one-to-one, also
    where similarities tie; the first of equals wins.
    """
    return match_in_parts(query, len(candidates), candidates.__getitem__)


def match_in_parts(
    query: Float[Tensor, "query_cells dimension"],
    count: int,
    part: Callable[[slice], Float[Tensor, "candidates cells dimension"]],
    *,
    eight_bits: bool = False,
) -> MutualNeighbours:
    """Do the same with `count` candidates that `part` makes when they are needed, a slice of them at a time.

    With `eight_bits`, neighbours are found by products of 8-bit integers where the processor has instructions for
    them, in a third of the time; it is for descriptors that were stored as coarsely.
    """
    in_eight_bits = eight_bits and has_integer_products(query.device)
    multiplication = on_one_core(_EightBits, query) if in_eight_bits else _AsTheyAre(query)
    with torch.inference_mode(mode=False):  # or the threads, which are in no such mode, could not write to them
        index, mutual, similarity = (
            torch.empty(count, len(query), dtype=dtype, device=query.device)
            for dtype in (torch.int64, torch.bool, query.dtype)
        )
    matched = MutualNeighbours(index, mutual, similarity)

    def match(which: slice) -> None:
        found = _match(part(which), multiplication)
        matched.index[which], matched.mutual[which] = found.index, found.mutual
        matched.similarity[which] = found.similarity

    length = _length_of_parts(count, query.device)
    in_parallel(match, [slice(first, min(first + length, count)) for first in range(0, count, length)])
    return matched


def _length_of_parts(count: int, device: torch.device) -> int:
    if device.type != "cpu":  # a GPU has most to do at once where it is given everything at once
        return max(1, count)
    return max(1, min(_GIVEN_TOGETHER, -(-count // (_PARTS_PER_THREAD * torch.get_num_threads()))))


Products = Float[Tensor, "query_cells columns"] | Int32[Tensor, "query_cells columns"]
Columns = Float[Tensor, "candidates cells dimension"] | Int8[Tensor, "candidates cells dimension"]


class _Multiplication(ABC):
    """Multiplies the cells of one query with those of candidates."""

    query_cells: int

    @abstractmethod
    def prepare(
        self, candidates: Float[Tensor, "candidates cells dimension"]
    ) -> tuple[Columns, Float[Tensor, "candidates 1"]]:
        """The numbers to multiply, and the unit of which their products are multiples, for each candidate."""

    @abstractmethod
    def products(self, columns: Columns) -> Products:
        """Products of the query's cells with all cells of some candidates; on a CPU, lost with the next ones."""


class _AsTheyAre(_Multiplication):
    def __init__(self, query: Float[Tensor, "query_cells dimension"]) -> None:
        self._query, self.query_cells = query, len(query)

    def prepare(
        self, candidates: Float[Tensor, "candidates cells dimension"]
    ) -> tuple[Columns, Float[Tensor, "candidates 1"]]:
        return candidates, candidates.new_ones(len(candidates), 1)

    def products(self, columns: Columns) -> Products:
        flat = columns.flatten(0, 1)
        return torch.mm(self._query, flat.T, out=_room(self._query, flat, self._query.dtype))


class _EightBits(_Multiplication):
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
        return torch.ops.aten._int_mm(self._rows, flat.T, out=_room(self._rows, flat, torch.int32))


def _room(rows: Tensor, columns: Tensor, dtype: torch.dtype) -> Tensor | None:
    return _products.room((len(rows), len(columns)), dtype) if rows.device.type == "cpu" else None


@torch.no_grad()
def _match(
    candidates: Float[Tensor, "candidates cells dimension"], multiplication: _Multiplication
) -> MutualNeighbours:
    columns, units = multiplication.prepare(candidates)
    found = [_largest(few, multiplication) for few in _in_turns(columns, multiplication.query_cells)]
    index, best, best_back = (torch.cat(column) for column in zip(*found, strict=True))
    similarity = best * units
    agreed = (similarity == (best_back * units).gather(1, index)) & (similarity > 0)
    return MutualNeighbours(index, agreed & _comes_first(index, agreed, best_back.shape[1]), similarity)


def _in_turns(columns: Columns, query_cells: int) -> tuple[Tensor, ...]:
    if columns.device.type != "cpu":
        return (columns,)
    return columns.split(max(1, _MULTIPLIED_TOGETHER // (query_cells * columns.shape[1])))


def _largest(columns: Columns, multiplication: _Multiplication) -> tuple[Tensor, Tensor, Tensor]:
    """The largest product of each query cell, and where; and that of each candidate cell.

    One product serves both directions.
    """
    products = multiplication.products(columns).unflatten(1, columns.shape[:2])
    index = _first_of_largest(products)
    return index.T, products.gather(2, index[..., None]).squeeze(2).T, products.amax(dim=0)


def _first_of_largest(products: Tensor) -> Int64[Tensor, "query_cells candidates"]:
    if products.device.type == "cpu" and products.dtype in (torch.float32, torch.int32):
        # NumPy's is vectorised, and ten times as fast as torch's.
        return torch.from_numpy(products.numpy().argmax(axis=2))
    return products.argmax(dim=2)


def _comes_first(
    index: Int64[Tensor, "candidates query_cells"], agreed: Bool[Tensor, "candidates query_cells"], cells: int
) -> Bool[Tensor, "candidates query_cells"]:
    """Of the query cells that agree with one and the same cell, which ties alone can bring about, the first."""
    query_cells = index.shape[1]
    own = torch.arange(query_cells, device=index.device).expand_as(index)
    first = own.new_full((len(index), cells), query_cells)
    first.scatter_reduce_(1, index, torch.where(agreed, own, query_cells), "amin")
    return first.gather(1, index) == own


def _to_int8(
    maps: Float[Tensor, "maps cells dimension"],
) -> tuple[Int8[Tensor, "maps cells dimension"], Float[Tensor, "maps 1"]]:
    """Each map as multiples of a unit of its own, so that nothing depends on which maps are matched together."""
    peaks = torch.maximum(maps.amax(dim=(1, 2)), -maps.amin(dim=(1, 2)))
    units = peaks.clamp(min=_MIN_PEAK)[:, None] / _INT8_PEAK
    return (maps / units[..., None]).round_().to(torch.int8), units
