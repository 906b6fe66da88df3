"""Mutual nearest neighbours of descriptor sets, batched over candidates."""

# Tensor.unflatten and torch.ops carry no types, and what they return is stated by the signatures here.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int8, Int32, Int64
from torch import Tensor

from vpr_dhe.processor import has_integer_products
from vpr_dhe.threads import in_parallel

# Candidates that a core matches at once: their products are read again from the cache that they were written to.
_PER_CORE = 4
_INT8_PEAK = 127
_LEAST_PEAK = 1e-30


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
    multiply = _in_eight_bits(query) if eight_bits and has_integer_products(query.device) else _as_they_are(query)
    # A GPU has most to do at once where it is given everything at once.
    length = _PER_CORE if query.device.type == "cpu" else max(1, count)
    slices = [slice(first, min(first + length, count)) for first in range(0, max(1, count), length)]
    found = in_parallel(lambda which: _nearest(part(which), multiply), slices)
    index, similarity, best_back = (torch.cat(column) for column in zip(*found, strict=True))
    agreed = (similarity == best_back.gather(1, index)) & (similarity > 0)
    return MutualNeighbours(index, agreed & _comes_first(index, agreed, best_back.shape[1]), similarity)


Products = Float[Tensor, "query_cells candidates cells"] | Int32[Tensor, "query_cells candidates cells"]
# Products with the cells of some candidates, and of which unit they are multiples, for each candidate.
Multiply = Callable[
    [Float[Tensor, "candidates cells dimension"]], tuple[Products, Float[Tensor, "candidates 1"] | float]
]


@torch.no_grad()
def _nearest(candidates: Float[Tensor, "candidates cells dimension"], multiply: Multiply) -> tuple[Tensor, ...]:
    """For every query cell the nearest cell and its similarity, and for every cell the largest similarity.

    One product serves both directions.
    """
    products, unit = multiply(candidates)
    index = _first_of_largest(products)
    best = products.gather(2, index[..., None]).squeeze(2)
    return index.T, best.T * unit, products.amax(dim=0) * unit


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


def _as_they_are(query: Float[Tensor, "query_cells dimension"]) -> Multiply:
    def multiply(candidates: Float[Tensor, "candidates cells dimension"]) -> tuple[Products, float]:
        return (query @ candidates.flatten(0, 1).T).unflatten(1, candidates.shape[:2]), 1.0

    return multiply


def _in_eight_bits(query: Float[Tensor, "query_cells dimension"]) -> Multiply:
    rows, row_unit = _to_int8(query[None])

    def multiply(
        candidates: Float[Tensor, "candidates cells dimension"],
    ) -> tuple[Products, Float[Tensor, "candidates 1"]]:
        columns, column_units = _to_int8(candidates)
        products = torch.ops.aten._int_mm(rows[0], columns.flatten(0, 1).T)
        return products.unflatten(1, candidates.shape[:2]), row_unit * column_units

    return multiply


def _to_int8(
    maps: Float[Tensor, "maps cells dimension"],
) -> tuple[Int8[Tensor, "maps cells dimension"], Float[Tensor, "maps 1"]]:
    """Each map as multiples of a unit of its own, so that nothing depends on which maps are matched together."""
    units = maps.abs().amax(dim=(1, 2)).clamp(min=_LEAST_PEAK)[:, None] / _INT8_PEAK
    return (maps / units[..., None]).round().to(torch.int8), units
