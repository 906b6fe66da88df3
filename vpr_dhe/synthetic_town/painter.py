"""Painter's order of the buildings from any viewpoint, by a tree of separating planes."""

import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from vpr_dhe.synthetic_town.arrays import Vector
from vpr_dhe.synthetic_town.layout import Footprint


class Split(NamedTuple):
    """Vertical plane, coordinate `axis` = value_m, with whole buildings on either side."""

    axis: int
    value_m: float
    below: "Split | int"
    above: "Split | int"


def painter_tree(footprints: Sequence[Footprint]) -> Split | int:
    """Split buildings recursively by planes that cut no building, which exist in a town of rows and streets."""
    return _split(list(enumerate(footprints)))


def far_to_near(node: Split | int, centre_m: Vector) -> Iterator[int]:
    """Iterate over the buildings, far to near, such that none is hidden by an earlier one."""
    if isinstance(node, int):
        yield node
        return
    near, far = (node.above, node.below) if centre_m[node.axis] > node.value_m else (node.below, node.above)
    yield from far_to_near(far, centre_m)
    yield from far_to_near(near, centre_m)


def _split(items: list[tuple[int, Footprint]]) -> Split | int:
    if len(items) == 1:
        return items[0][0]
    best_balance, best = 0, None
    for axis in (0, 1):
        ordered = sorted(items, key=lambda item: item[1][axis])
        reach_m = -math.inf
        for position in range(1, len(ordered)):
            reach_m = max(reach_m, ordered[position - 1][1][axis + 2])
            next_m = ordered[position][1][axis]
            balance = min(position, len(ordered) - position)
            if next_m >= reach_m - 1e-9 and balance > best_balance:
                best_balance, best = balance, (axis, (next_m + reach_m) / 2, ordered[:position], ordered[position:])
    assert best is not None, "the footprints of buildings must be separable by axis-parallel lines"
    axis, value_m, below, above = best
    return Split(axis, value_m, _split(below), _split(above))
