"""Painting of windows: one kind per front, with different curtains and reflections."""

import cv2
import numpy as np
from jaxtyping import Bool

from vpr_dhe.records import Image
from vpr_dhe.synthetic_town.canvas import Canvas
from vpr_dhe.synthetic_town.plans import Colour, FrontPlan, vary

GLASS: Colour = (62, 76, 88)
_BARS = {  # vertical and horizontal glazing bars, as fractions of the width and height
    "sash": ((0.5,), (0.5,)),
    "casement": ((0.5,), (0.68,)),
    "grid": ((0.33, 0.67), (0.25, 0.5, 0.75)),
    "arched": ((0.5,), (0.4, 0.7)),
    "wide": ((0.25, 0.75), ()),
}


def paint_window(
    canvas: Canvas, plan: FrontPlan, centre_m: float, sill_m: float, rng: np.random.Generator, *, scale: float = 1.0
) -> None:
    """Paint a window of the front's kind, with its surround and sill, sometimes with flowers."""
    width_m, height_m = plan.window_width_m * scale, min(plan.window_height_m, plan.floor_m - 1.1) * scale
    left_m, right_m, top_m = centre_m - width_m / 2, centre_m - width_m / 2 + width_m, sill_m + height_m
    surround = canvas.region(left_m - 0.1, sill_m, right_m + 0.1, top_m + 0.1)
    opening = canvas.region(left_m, sill_m, right_m, top_m)
    pane = _pane(opening.shape[0], opening.shape[1], plan, rng)
    if plan.window == "arched":
        surround[_under_arch(surround)] = plan.trim
        mask = _under_arch(opening)
        opening[mask] = pane[mask]
    else:
        surround[:] = plan.trim
        opening[:] = pane
        canvas.box(left_m - 0.2, top_m + 0.1, right_m + 0.2, top_m + 0.24, plan.trim)
    canvas.box(left_m - 0.16, sill_m - 0.12, right_m + 0.16, sill_m, plan.trim)
    canvas.shade(left_m - 0.12, sill_m - 0.24, right_m + 0.12, sill_m - 0.12, 0.66)
    if scale == 1.0 and rng.random() < 0.12:
        _paint_flowers(canvas.region(left_m, sill_m - 0.1, right_m, sill_m + 0.28), rng)


def _pane(height: int, width: int, plan: FrontPlan, rng: np.random.Generator) -> Image:
    """Paint glass, with curtains or reflections, and the glazing bars."""
    ramp = np.linspace(1.25, 0.75, height, dtype=np.float32)[:, None, None] * rng.uniform(0.7, 1.25)
    pane = np.clip(ramp * np.array(GLASS, np.float32) + np.zeros((1, width, 1), np.float32), 0, 255).astype(np.uint8)
    behind = rng.random()
    cloth = vary((206, 198, 180), rng, 22.0)
    if behind < 0.3:
        part = int(width * rng.uniform(0.15, 0.35))
        pane[:, :part] = pane[:, width - part :] = cloth
    elif behind < 0.5:
        pane[: int(height * rng.uniform(0.2, 0.8))] = cloth
    elif behind < 0.75:
        start = int(rng.integers(-height, width))
        end = start + width // 2
        slant = np.array([[start, 0], [end, 0], [end - height, height], [start - height, height]])
        cv2.fillConvexPoly(pane, slant.astype(np.int32), tuple(min(255, level + 48) for level in GLASS))
    pane[:4] //= 2
    _paint_bars(pane, plan.window, plan.trim)
    return pane


def _paint_bars(pane: Image, kind: str, colour: Colour) -> None:
    height, width = pane.shape[:2]
    uprights, levels = _BARS[kind]
    for part in uprights:
        pane[:, round(part * width) - 1 : round(part * width) + 1] = colour
    for part in levels:
        pane[round((1 - part) * height) - 1 : round((1 - part) * height) + 1] = colour
    cv2.rectangle(pane, (0, 0), (width - 1, height - 1), colour, 2)


def _under_arch(view: Image) -> Bool[np.ndarray, "height width"]:
    """Mask of the area under a round arch that fills the view."""
    height, width = view.shape[:2]
    rise = min(width // 2, height)
    y, x = np.mgrid[:height, :width]
    return (y >= rise) | (((x - (width - 1) / 2) / (width / 2)) ** 2 + ((y - rise) / max(rise, 1)) ** 2 <= 1)


def _paint_flowers(view: Image, rng: np.random.Generator) -> None:
    leaves = rng.random(view.shape[:2])
    view[leaves < 0.6] = (58, 96, 48)
    view[leaves < 0.18] = vary((210, 60, 80), rng, 30.0)
