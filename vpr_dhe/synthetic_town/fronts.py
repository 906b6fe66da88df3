"""Building fronts: painted masonry, storeys of windows, ground floor, and cornice or gable; or a crop of a photo."""

import cv2
import numpy as np

from vpr_dhe.records import Image
from vpr_dhe.synthetic_town.canvas import Canvas
from vpr_dhe.synthetic_town.ground_floors import paint_ground_floor
from vpr_dhe.synthetic_town.plans import FrontPlan, vary
from vpr_dhe.synthetic_town.weathering import paint_age
from vpr_dhe.synthetic_town.windows import paint_window

_PX_PER_M = 32.0


def paint_front(plan: FrontPlan, rng: np.random.Generator) -> Image:
    """Paint a front: masonry, windows, ground floor, cornice or gable, and weathering."""
    canvas = Canvas.of(plan.material, (plan.width_m, plan.height_m), _PX_PER_M, plan.colour, rng)
    _paint_storeys(canvas, plan, rng)
    paint_ground_floor(canvas, plan, rng)
    if plan.gable_m > 0:
        _paint_verge(canvas, plan)
    else:
        _paint_cornice(canvas, plan, rng)
    paint_age(canvas, plan, rng)
    return canvas.pixels


def cut_front(plan: FrontPlan, photo: Image, rng: np.random.Generator) -> Image:
    """Cut a front from a photo of a facade: a part of the front's proportions, at least half as large as possible."""
    height, width = photo.shape[:2]
    height_m = plan.eaves_m + plan.gable_m
    px_per_m = rng.uniform(0.5, 1.0) * min(width / plan.width_m, height / height_m)
    size = [min(max(round(side_m * px_per_m), 1), most) for side_m, most in ((plan.width_m, width), (height_m, height))]
    left, top = (int(rng.integers(most - part + 1)) for most, part in zip((width, height), size, strict=True))
    part = photo[top : top + size[1], left : left + size[0]]
    # A copy at the scale of painted fronts, so that a texture does not keep a large photo in memory.
    painted_px = round(plan.width_m * _PX_PER_M), round(height_m * _PX_PER_M)
    return cv2.resize(part, painted_px, interpolation=cv2.INTER_AREA)


def _paint_storeys(canvas: Canvas, plan: FrontPlan, rng: np.random.Generator) -> None:
    """Paint rows of windows above the ground floor."""
    balcony = rng.random() < 0.18
    string_course = rng.random() < 0.5
    for floor in range(1, plan.floors):
        bottom_m = plan.ground_floor_m + (floor - 1) * plan.floor_m
        sill_m = bottom_m + 0.75
        if string_course:
            canvas.box(0.0, bottom_m - 0.08, plan.width_m, bottom_m + 0.1, plan.trim)
            canvas.shade(0.0, bottom_m - 0.2, plan.width_m, bottom_m - 0.08, 0.75)
        for centre_m in plan.column_centres_m:
            paint_window(canvas, plan, centre_m, sill_m, rng)
            if balcony:
                _paint_balcony(canvas, centre_m, sill_m, plan)
    if plan.gable_m > 1.8:
        paint_window(canvas, plan, plan.width_m / 2, plan.eaves_m + 0.1, rng, scale=0.7)


def _paint_balcony(canvas: Canvas, centre_m: float, sill_m: float, plan: FrontPlan) -> None:
    left_m, right_m = centre_m - plan.window_width_m / 2 - 0.3, centre_m + plan.window_width_m / 2 + 0.3
    canvas.box(left_m, sill_m - 0.3, right_m, sill_m - 0.14, (84, 80, 78))
    railing = canvas.region(left_m, sill_m - 0.14, right_m, sill_m + 0.75)
    railing[:, ::4] = (44, 44, 46)
    railing[:2] = (40, 40, 42)


def _paint_cornice(canvas: Canvas, plan: FrontPlan, rng: np.random.Generator) -> None:
    """Paint a toothed cornice and, above it, the mansard roof if there is one."""
    base_m = plan.eaves_m - plan.mansard_m
    if plan.mansard_m > 0:
        grey = vary((86, 88, 98), rng, 10.0)
        canvas.cover((0.0, base_m, plan.width_m, plan.eaves_m), "tiles", grey, rng)
        for centre_m in plan.column_centres_m[::2]:
            paint_window(canvas, plan, centre_m, base_m + 0.25, rng, scale=0.75)
    canvas.box(0.0, base_m - 0.35, plan.width_m, base_m, plan.trim)
    teeth = canvas.region(0.0, base_m - 0.35, plan.width_m, base_m - 0.2)
    step = int(rng.integers(6, 14))
    for start in range(step // 2):
        teeth[:, start::step] = teeth[:, start::step] // 2
    canvas.shade(0.0, base_m - 0.6, plan.width_m, base_m - 0.35, 0.7)


def _paint_verge(canvas: Canvas, plan: FrontPlan) -> None:
    """Paint boards along the two slopes of a gable."""
    width, eaves = canvas.pixels.shape[1], plan.gable_m * _PX_PER_M
    line = np.array([[0, eaves], [width / 2, 0.0], [width, eaves]]).round().astype(np.int32)
    cv2.polylines(canvas.pixels, [line], False, plan.trim, round(0.5 * _PX_PER_M), cv2.LINE_AA)
