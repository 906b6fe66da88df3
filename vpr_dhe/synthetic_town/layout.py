"""Layout of the town: rows of convex buildings along a grid of streets, and the ground."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

import numpy as np
from jaxtyping import Float64

from vpr_dhe.synthetic_town.arrays import Vector, read_only
from vpr_dhe.synthetic_town.plans import CrossingPlan, FrontPlan, PlainPlan, Plan, RoadPlan, StreetStyle
from vpr_dhe.synthetic_town.streets import Grid, Street, intervals, lay_streets
from vpr_dhe.synthetic_town.surfaces import Facade

Footprint: TypeAlias = tuple[float, float, float, float]
"""Ground area of a building: x from, y from, x to, y to, metres."""
_Point: TypeAlias = Float64[np.ndarray, "2"]

_BUILDING_DEPTH_M = 9.0
# The ground extends under the buildings, so that setbacks leave no gaps.
_GROUND_OVERLAP_M = 1.0
_ROOF_COLOURS = ((150, 84, 62), (96, 92, 96), (126, 74, 60))


@dataclass(frozen=True)
class Layout:
    """Unpainted town; surfaces are numbered, building fronts first."""

    streets: tuple[Street, ...]
    surfaces: tuple[Facade, ...]
    footprints: tuple[Footprint, ...]


def lay_out(rng: np.random.Generator, street_count: int) -> Layout:
    """Lay out a town; all random choices come from one generator, in a fixed order."""
    grid = lay_streets(rng, street_count)
    builder = _Builder(rng)
    builder.add_blocks(grid)
    for street in grid.streets:
        builder.add_ends(street)
    for street in grid.streets:
        builder.add_roads(street, grid.crossing(street))
    for street in grid.north_south:
        for other in grid.east_west:
            builder.add_crossing(street, other)
    ordered = sorted(builder.facades, key=lambda facade: not isinstance(facade.plan, FrontPlan))
    surfaces = tuple(replace(facade, index=index) for index, facade in enumerate(ordered))
    return Layout(grid.streets, surfaces, tuple(builder.footprints))


class _Builder:
    """Builder of surfaces and footprints."""

    def __init__(self, rng: np.random.Generator) -> None:
        self.facades: list[Facade] = []
        self.footprints: list[Footprint] = []
        self._rng = rng

    def add_blocks(self, grid: Grid) -> None:
        """Add rows of buildings along the sides of blocks that face streets; south and north rows include corners."""
        for x_from, x_to, west, east in intervals(grid.north_south, *grid.x_span_m):
            for y_from, y_to, south, north in intervals(grid.east_west, *grid.y_span_m):
                if south:
                    self._add_row((x_from, y_from), (1.0, 0.0), x_to - x_from, south, (bool(west), bool(east)))
                if north:
                    self._add_row((x_to, y_to), (-1.0, 0.0), x_to - x_from, north, (bool(east), bool(west)))
                low = y_from + _BUILDING_DEPTH_M * bool(south)
                high = y_to - _BUILDING_DEPTH_M * bool(north)
                if east:
                    self._add_row((x_to, low), (0.0, 1.0), high - low, east, (False, False))
                if west:
                    self._add_row((x_from, high), (0.0, -1.0), high - low, west, (False, False))

    def add_ends(self, street: Street) -> None:
        """Add a building across each end of a street, wide enough to hide the setbacks of its neighbours."""
        half_m = street.width_m / 2 + 1
        for along_m, side in ((street.end_m, -1.0), (street.start_m, 1.0)):
            # Seen from the street, left is the west side at its northern end.
            left = np.array(street.point(along_m, side * half_m))
            right = np.array([-side, 0.0]) if street.north_south else np.array([0.0, side])
            self._add_building(left, right, 2 * half_m, street.style, (False, False))

    def add_roads(self, street: Street, crossing: Sequence[Street]) -> None:
        """Add the ground of a street between its crossings."""
        for low_m, high_m, before, after in intervals(crossing, street.start_m, street.end_m):
            start_m, end_m = low_m - (before is None), high_m + (after is None)
            zebra = (bool(before) and self._rng.random() < 0.5, bool(after) and self._rng.random() < 0.5)
            plan = RoadPlan(
                length_m=end_m - start_m,
                width_m=street.width_m + 2 * _GROUND_OVERLAP_M,
                pavement_m=street.pavement_m + _GROUND_OVERLAP_M,
                paving=street.style.paving,
                marking=street.style.marking,
                zebra=zebra,
            )
            along = [0.0, 1.0] if street.north_south else [1.0, 0.0]
            corner = street.point(start_m, plan.width_m / 2)
            self._add_ground(corner, along, plan.length_m, plan.width_m, plan)

    def add_crossing(self, street: Street, other: Street) -> None:
        """Add the ground of the crossing of a north-south street with an east-west one."""
        plan = CrossingPlan(street.width_m, other.width_m, street.pavement_m, other.pavement_m)
        corner = (street.centre_m - street.width_m / 2, other.centre_m - other.width_m / 2)
        self._add_ground(corner, [1.0, 0.0], plan.width_m, plan.height_m, plan)

    def _add_row(
        self,
        start: tuple[float, float],
        right: tuple[float, float],
        length_m: float,
        street: Street,
        at_streets: tuple[bool, bool],
    ) -> None:
        """Fill a row with buildings; `right` points along it as seen from the street.

        `at_streets` says whether its left and right ends face streets.
        """
        count = max(round(length_m / self._rng.uniform(*street.style.building_width_m)), 1)
        parts = self._rng.uniform(0.75, 1.25, count)
        offset_m = 0.0
        for number, width_m in enumerate((parts / parts.sum() * length_m).tolist()):
            corners = (at_streets[0] and number == 0, at_streets[1] and number == count - 1)
            left = np.array(start) + offset_m * np.array(right)
            self._add_building(left, np.array(right), width_m, street.style, corners)
            offset_m += width_m

    def _add_building(
        self, left: _Point, right: _Point, width_m: float, style: StreetStyle, at_streets: tuple[bool, bool]
    ) -> None:
        """Add one convex building: `left` is the left foot of its front.

        `at_streets` says whether its left and right sides face streets.
        """
        plan = FrontPlan.sample(self._rng, style, width_m)
        if any(at_streets):
            plan = replace(plan, gable_m=0.0)
        setback_m = float(self._rng.choice([0.0, 0.0, 0.2, 0.4]))
        depth_m = _BUILDING_DEPTH_M - setback_m
        inwards = np.array([-right[1], right[0]])
        left = left + setback_m * inwards
        # Sides are numbered from the front, counter-clockwise seen from above.
        feet = [left, left + width_m * right, left + width_m * right + depth_m * inwards, left + depth_m * inwards]
        along = [right, inwards, -right, -inwards]
        self.footprints.append((*np.min(feet, axis=0).tolist(), *np.max(feet, axis=0).tolist()))
        flat = any(at_streets) or plan.gable_m > 0 or plan.mansard_m > 0
        ridge_m = 0.0 if flat else float(self._rng.choice([0.0, 2.5, 3.2]))
        faces_street = (True, at_streets[1], False, at_streets[0])
        for side in (0, 2, 1, 3):
            length_m, gable_m = (depth_m, ridge_m) if side % 2 else (width_m, plan.gable_m)
            if faces_street[side]:
                ground_floor = "home" if side else plan.ground_floor
                painted = replace(plan, width_m=length_m, ground_floor=ground_floor)
            else:
                painted = self._wall(plan, length_m, plan.eaves_m + gable_m)
            self._add_upright(feet[side], along[side], length_m, plan.eaves_m, gable_m, painted)
        # The ridge runs along the street, or away from it behind a gable.
        colour = _ROOF_COLOURS[int(self._rng.integers(3))]
        for side in (0, 2) if ridge_m > 0 else (1, 3):
            length_m, half_m = (depth_m, width_m / 2) if side % 2 else (width_m, depth_m / 2)
            rise_m = max(ridge_m, plan.gable_m)
            slope_m = math.hypot(half_m, rise_m)
            up = [*(along[(side + 1) % 4] * half_m / slope_m), rise_m / slope_m]
            roof = PlainPlan(length_m, slope_m, "tiles", colour, may_advertise=False)
            self._add([*feet[side], plan.eaves_m], [*along[side], 0.0], up, _rectangle(length_m, slope_m), roof)

    def _wall(self, plan: FrontPlan, width_m: float, height_m: float) -> PlainPlan:
        material = plan.material if self._rng.random() < 0.6 else "brick"
        colour = plan.colour if material == plan.material else (142, 96, 80)
        return PlainPlan(width_m, height_m, material, colour, may_advertise=width_m > 3)

    def _add_upright(
        self, foot: _Point, right: _Point, width_m: float, eaves_m: float, gable_m: float, plan: FrontPlan | PlainPlan
    ) -> None:
        """Add a side of a building; a gable adds a triangle on top."""
        outline = _rectangle(width_m, eaves_m)
        if gable_m > 0:
            outline.insert(3, (width_m / 2, eaves_m + gable_m))
        self._add([*foot, 0.0], [*right, 0.0], [0.0, 0.0, 1.0], outline, plan)

    def _add_ground(
        self, corner: tuple[float, float], along: list[float], length_m: float, width_m: float, plan: Plan
    ) -> None:
        up = [-along[1], along[0], 0.0]
        self._add([*corner, 0.0], [*along, 0.0], up, _rectangle(length_m, width_m), plan)

    def _add(
        self,
        origin_m: Sequence[float],
        right: Sequence[float],
        up: Sequence[float],
        outline_m: Sequence[tuple[float, float]],
        plan: Plan,
    ) -> None:
        """Add a surface of the last building, or of the ground."""
        building = -1 if isinstance(plan, RoadPlan | CrossingPlan) else len(self.footprints) - 1
        corners_m = read_only(np.array(outline_m))
        self.facades.append(Facade(-1, building, _vector(origin_m), _vector(right), _vector(up), corners_m, plan))


def _vector(values: Sequence[float]) -> Vector:
    return read_only(np.array(values, np.float64))


def _rectangle(width_m: float, height_m: float) -> list[tuple[float, float]]:
    return [(0.0, 0.0), (width_m, 0.0), (width_m, height_m), (0.0, height_m)]
