"""Painting of ground floors: homes, shops, garages."""

import numpy as np

from vpr_dhe.synthetic_town.canvas import Canvas
from vpr_dhe.synthetic_town.plans import Colour, FrontPlan, vary
from vpr_dhe.synthetic_town.signs import paint_sign
from vpr_dhe.synthetic_town.windows import GLASS, paint_window

# Colours of goods in shop windows and of posters.
GOODS: tuple[Colour, ...] = (
    (188, 60, 48), (214, 170, 82), (232, 224, 204), (92, 118, 84), (76, 96, 130), (150, 110, 78), (60, 54, 56),
    (206, 140, 120), (128, 148, 152),
)  # fmt: skip


def paint_ground_floor(canvas: Canvas, plan: FrontPlan, rng: np.random.Generator) -> None:
    """Paint the ground floor of a plan."""
    {"home": _paint_home, "shop": _paint_shop, "garage": _paint_garage}[plan.ground_floor](canvas, plan, rng)


def _paint_home(canvas: Canvas, plan: FrontPlan, rng: np.random.Generator) -> None:
    columns_m = plan.column_centres_m
    door = int(rng.integers(len(columns_m)))
    _paint_plinth(canvas, plan, rng)
    for column, centre_m in enumerate(columns_m):
        if column == door:
            _paint_door(canvas, centre_m, (1.0, 2.3), plan.accent, plan.trim)
        else:
            paint_window(canvas, plan, centre_m, 1.05, rng)


def _paint_shop(canvas: Canvas, plan: FrontPlan, rng: np.random.Generator) -> None:
    """Paint a shop front: sign board, display windows beside a door, and sometimes a striped awning."""
    board_m = plan.ground_floor_m - 0.85
    canvas.box(0.15, 0.0, plan.width_m - 0.15, plan.ground_floor_m - 0.1, plan.accent)
    paint_sign(canvas, (0.2, board_m, plan.width_m - 0.2, plan.ground_floor_m - 0.15), plan.accent, rng)
    door_m = rng.uniform(0.2, 0.8) * (plan.width_m - 2.2) + 1.1
    _paint_display(canvas, 0.4, door_m - 0.75, board_m, rng)
    _paint_display(canvas, door_m + 0.75, plan.width_m - 0.4, board_m, rng)
    _paint_door(canvas, door_m, (0.95, 2.2), vary(plan.accent, rng, 20.0), plan.trim)
    if rng.random() < 0.4:
        stripe = max(int(0.3 * canvas.px_per_m), 1)
        awning = canvas.region(0.3, board_m - 0.75, plan.width_m - 0.3, board_m)
        striped = (np.arange(awning.shape[1]) // stripe % 2)[:, None] == 0
        awning[:] = np.where(striped, vary(plan.accent, rng, 30.0), plan.trim).astype(np.uint8)
        canvas.shade(0.3, board_m - 1.0, plan.width_m - 0.3, board_m - 0.75, 0.5)


def _paint_garage(canvas: Canvas, plan: FrontPlan, rng: np.random.Generator) -> None:
    """Paint a ribbed gate and, where there is room, windows."""
    _paint_plinth(canvas, plan, rng)
    gate_m = min(2.6, plan.width_m * 0.45)
    left_m = rng.uniform(0.4, max(plan.width_m - gate_m - 0.4, 0.5))
    canvas.box(left_m - 0.12, 0.0, left_m + gate_m + 0.12, 2.6, plan.trim)
    canvas.box(left_m, 0.0, left_m + gate_m, 2.5, vary(plan.accent, rng, 25.0))
    ribs = canvas.region(left_m, 0.0, left_m + gate_m, 2.5)
    ribs[::6] = ribs[::6] // 2
    for centre_m in plan.column_centres_m:
        if abs(centre_m - left_m - gate_m / 2) > gate_m / 2 + plan.window_width_m / 2 + 0.4:
            paint_window(canvas, plan, centre_m, 1.1, rng)


def _paint_plinth(canvas: Canvas, plan: FrontPlan, rng: np.random.Generator) -> None:
    height_m = rng.uniform(0.4, 0.8)
    canvas.shade(0.0, 0.0, plan.width_m, height_m, rng.uniform(0.6, 0.8))
    canvas.box(0.0, height_m, plan.width_m, height_m + 0.07, plan.trim)


def _paint_door(canvas: Canvas, centre_m: float, size_m: tuple[float, float], colour: Colour, trim: Colour) -> None:
    width_m, height_m = size_m
    left_m, right_m = centre_m - width_m / 2, centre_m + width_m / 2
    canvas.box(left_m - 0.14, 0.0, right_m + 0.14, height_m + 0.14, trim)
    canvas.box(left_m, 0.0, right_m, height_m, colour)
    canvas.box(left_m + 0.1, height_m - 0.5, right_m - 0.1, height_m - 0.08, GLASS)
    for low, high in ((0.15, 0.42), (0.48, 0.72)):
        for part in (0.08, 0.54):
            panel_m = (left_m + part * width_m, low * height_m, left_m + (part + 0.38) * width_m, high * height_m)
            canvas.shade(*panel_m, 0.72)
    canvas.box(left_m - 0.2, 0.0, right_m + 0.2, 0.16, (150, 146, 140))


def _paint_display(canvas: Canvas, left_m: float, right_m: float, top_m: float, rng: np.random.Generator) -> None:
    """Paint a display window with goods on shelves."""
    if right_m - left_m < 0.5:
        return
    canvas.box(left_m, 0.55, right_m, top_m - 0.1, (48, 52, 58))
    for shelf_m in (0.6, 1.3, 2.0):
        position_m = left_m + 0.1
        while position_m < right_m - 0.3 and shelf_m < top_m - 0.7:
            size_m = rng.uniform(0.15, 0.5)
            goods = vary(GOODS[rng.integers(len(GOODS))], rng, 24.0)
            canvas.box(position_m, shelf_m, min(position_m + size_m, right_m), shelf_m + rng.uniform(0.2, 0.55), goods)
            position_m += size_m + rng.uniform(0.05, 0.5)
    canvas.box((left_m + right_m) / 2 - 0.03, 0.55, (left_m + right_m) / 2 + 0.03, top_m - 0.1, (200, 196, 186))
