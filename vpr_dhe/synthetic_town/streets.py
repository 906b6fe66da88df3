"""Grid of streets."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import cycle
from typing import NamedTuple

import numpy as np
from jaxtyping import Float64

from vpr_dhe.synthetic_town.plans import STYLES, StreetStyle

_OUTER_BLOCK_M = 34.0


@dataclass(frozen=True)
class Street:
    """Straight street along the y axis (`north_south`) or the x axis; `centre_m` is the position of its middle line."""

    north_south: bool
    centre_m: float
    start_m: float
    end_m: float
    width_m: float
    style: StreetStyle

    @property
    def heading_deg(self) -> float:
        """Heading along the street's axis: 0 is north, 90 is east."""
        return 0.0 if self.north_south else 90.0

    @property
    def pavement_m(self) -> float:
        """Width of the pavement on either side, metres."""
        return 0.2 * self.width_m

    def point(self, along_m: float, right_m: float) -> tuple[float, float]:
        """World (x, y) of a point given along the street's axis and to the right of its middle line."""
        return (self.centre_m + right_m, along_m) if self.north_south else (along_m, self.centre_m - right_m)


class Interval(NamedTuple):
    """Space between two parallel streets; None is the town's edge."""

    start_m: float
    end_m: float
    before: Street | None
    after: Street | None


@dataclass(frozen=True)
class Grid:
    """Streets of both directions, in order, and the extent of the town as (from, to)."""

    north_south: tuple[Street, ...]
    east_west: tuple[Street, ...]
    x_span_m: tuple[float, float]
    y_span_m: tuple[float, float]

    @property
    def streets(self) -> tuple[Street, ...]:
        """All streets."""
        return self.north_south + self.east_west

    def crossing(self, street: Street) -> tuple[Street, ...]:
        """Streets that cross a street."""
        return self.east_west if street.north_south else self.north_south


def lay_streets(rng: np.random.Generator, count: int) -> Grid:
    """Lay out streets, half of them (rounded up) north-south and the others east-west."""
    tastes = cycle([STYLES[index] for index in rng.permutation(len(STYLES))])
    columns_m, rows_m = (rng.uniform(13.0, 19.0, number) for number in ((count + 1) // 2, count // 2))
    x_m, y_m = _spread(rng, columns_m), _spread(rng, rows_m)
    x_span_m, y_span_m = _span(x_m, columns_m), _span(y_m, rows_m)
    columns = zip(x_m.tolist(), columns_m.tolist(), strict=True)
    rows = zip(y_m.tolist(), rows_m.tolist(), strict=True)
    return Grid(
        north_south=tuple(Street(True, centre_m, *y_span_m, width_m, next(tastes)) for centre_m, width_m in columns),
        east_west=tuple(Street(False, centre_m, *x_span_m, width_m, next(tastes)) for centre_m, width_m in rows),
        x_span_m=x_span_m,
        y_span_m=y_span_m,
    )


def intervals(streets: Sequence[Street], start_m: float, end_m: float) -> list[Interval]:
    """Spaces between parallel streets and the two ends of the town."""
    edges: list[tuple[float, Street | None]] = [(start_m, None)]
    for street in streets:
        edges += [(street.centre_m - street.width_m / 2, street), (street.centre_m + street.width_m / 2, street)]
    edges.append((end_m, None))
    return [Interval(low[0], high[0], low[1], high[1]) for low, high in zip(edges[::2], edges[1::2], strict=True)]


def _spread(rng: np.random.Generator, widths_m: Float64[np.ndarray, " streets"]) -> Float64[np.ndarray, " streets"]:
    """Draw centre lines of parallel streets, with blocks of random size between them."""
    gaps_m = rng.uniform(44.0, 66.0, max(len(widths_m) - 1, 0)) + (widths_m[1:] + widths_m[:-1]) / 2
    centres_m = np.concatenate([[0.0], np.cumsum(gaps_m)])[: len(widths_m)]
    return centres_m - centres_m.mean() if len(centres_m) else centres_m


def _span(centres_m: Float64[np.ndarray, " streets"], widths_m: Float64[np.ndarray, " streets"]) -> tuple[float, float]:
    """Extent of the crossing streets: an outer block beyond the outermost parallel street."""
    if len(centres_m) == 0:
        return -2 * _OUTER_BLOCK_M, 2 * _OUTER_BLOCK_M
    return (
        float(centres_m[0] - widths_m[0] / 2 - _OUTER_BLOCK_M),
        float(centres_m[-1] + widths_m[-1] / 2 + _OUTER_BLOCK_M),
    )
