"""Painting of the ground: streets and crossings."""

import cv2
import numpy as np

from vpr_dhe.records import Image
from vpr_dhe.synthetic_town.canvas import Canvas
from vpr_dhe.synthetic_town.plans import CrossingPlan, RoadPlan, vary

_PX_PER_M = 24.0


def paint_road(plan: RoadPlan, rng: np.random.Generator) -> Image:
    """Paint carriageway, kerbs, pavements, markings, patches and covers."""
    grey = vary((104, 104, 106), rng, 10.0)
    canvas = Canvas.of(plan.paving, (plan.length_m, plan.width_m), _PX_PER_M, grey, rng)
    _paint_wear(canvas, plan, rng)
    _paint_markings(canvas, plan)
    flags = vary((152, 148, 140), rng, 12.0)
    for bottom_m in (0.0, plan.width_m - plan.pavement_m):
        canvas.cover((0.0, bottom_m, plan.length_m, bottom_m + plan.pavement_m), "slabs", flags, rng)
    for kerb_m in (plan.pavement_m, plan.width_m - plan.pavement_m):
        canvas.box(0.0, kerb_m - 0.1, plan.length_m, kerb_m + 0.1, (176, 172, 164))
    return canvas.pixels


def paint_crossing(plan: CrossingPlan, rng: np.random.Generator) -> Image:
    """Paint carriageway and corners."""
    grey, flags = vary((104, 104, 106), rng, 6.0), (152, 148, 140)
    canvas = Canvas.of("asphalt", (plan.width_m, plan.height_m), _PX_PER_M, grey, rng)
    for left_m in (0.0, plan.width_m - plan.pavement_x_m):
        for bottom_m in (0.0, plan.height_m - plan.pavement_y_m):
            corner_m = (left_m, bottom_m, left_m + plan.pavement_x_m, bottom_m + plan.pavement_y_m)
            canvas.cover(corner_m, "slabs", flags, rng)
    return canvas.pixels


def _paint_wear(canvas: Canvas, plan: RoadPlan, rng: np.random.Generator) -> None:
    for _ in range(int(plan.length_m / 6)):
        left_m = rng.uniform(0, plan.length_m - 1)
        bottom_m = rng.uniform(plan.pavement_m, plan.width_m - plan.pavement_m)
        factor = rng.uniform(0.72, 1.15)
        canvas.shade(left_m, bottom_m, left_m + rng.uniform(0.5, 3.0), bottom_m + rng.uniform(0.4, 1.6), factor)
    for _ in range(int(plan.length_m / 14) + 1):
        centre = rng.uniform((0, plan.pavement_m), (plan.length_m, plan.width_m - plan.pavement_m)) * canvas.px_per_m
        cv2.circle(canvas.pixels, tuple(centre.astype(int).tolist()), 8, (58, 56, 54), -1, cv2.LINE_AA)
        cv2.circle(canvas.pixels, tuple(centre.astype(int).tolist()), 8, (128, 126, 122), 1, cv2.LINE_AA)


def _paint_markings(canvas: Canvas, plan: RoadPlan) -> None:
    white, centre_m = (216, 214, 206), plan.width_m / 2
    if plan.marking == "dashes":
        for start_m in np.arange(1.5, plan.length_m - 2, 5.0).tolist():
            canvas.box(start_m, centre_m - 0.08, start_m + 2, centre_m + 0.08, white)
    elif plan.marking == "double":
        for offset_m in (-0.16, 0.16):
            canvas.box(0.0, centre_m + offset_m - 0.05, plan.length_m, centre_m + offset_m + 0.05, white)
    for wanted, start_m in zip(plan.zebra, (0.8, plan.length_m - 3.6), strict=True):
        for stripe_m in np.arange(plan.pavement_m + 0.4, plan.width_m - plan.pavement_m - 0.5, 1.0).tolist():
            if wanted:
                canvas.box(start_m, stripe_m, start_m + 2.8, stripe_m + 0.5, white)
