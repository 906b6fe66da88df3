"""Weathering that makes fronts distinctive: drain pipes, ivy, graffiti, posters, signs."""

import cv2
import numpy as np

from vpr_dhe.synthetic_town.canvas import Canvas, smooth_noise
from vpr_dhe.synthetic_town.ground_floors import GOODS
from vpr_dhe.synthetic_town.plans import FrontPlan, vary
from vpr_dhe.synthetic_town.signs import contrast, paint_sign, sign_colour


def paint_age(canvas: Canvas, plan: FrontPlan, rng: np.random.Generator) -> None:
    """Paint weathering on a front."""
    chance = rng.random(6)
    if chance[0] < 0.6:
        pipe_m = 0.1 if rng.random() < 0.5 else plan.width_m - 0.22
        canvas.box(pipe_m, 0.0, pipe_m + 0.12, plan.eaves_m - plan.mansard_m - 0.1, vary((96, 96, 98), rng, 20.0))
    if chance[1] < 0.12:
        _paint_ivy(canvas, rng)
    if chance[2] < 0.3:
        _paint_graffiti(canvas, plan, rng)
    for _ in range(int(rng.integers(1, 5)) if chance[3] < 0.35 else 0):
        _paint_poster(canvas, plan, rng)
    if chance[4] < 0.3 and plan.floors > 1:
        left_m, bottom_m = rng.uniform(0.3, plan.width_m - 1.2), plan.ground_floor_m
        colour = sign_colour(rng, 15.0)
        paint_sign(canvas, (left_m, bottom_m + 0.1, left_m + 2.4, bottom_m + 0.62), colour, rng)
    canvas.shade(0.0, 0.0, plan.width_m, 0.25, 0.75)


def _paint_ivy(canvas: Canvas, rng: np.random.Generator) -> None:
    height, width = canvas.pixels.shape[:2]
    reach = np.linspace(-0.35, 0.55, height, dtype=np.float32)[:, None]
    side = np.linspace(0.35, -0.5, width, dtype=np.float32)[None, :] * (1 if rng.random() < 0.5 else -1)
    density = smooth_noise(height, width, 22.0, rng) + 0.6 * smooth_noise(height, width, 6.0, rng) + reach + side
    mask = density > rng.uniform(1.2, 1.45)
    leaves = 40 + 60 * smooth_noise(height, width, 3.0, rng)
    canvas.pixels[mask] = (leaves[mask][:, None] * np.array([0.72, 1.25, 0.5], np.float32)).astype(np.uint8)


def _paint_graffiti(canvas: Canvas, plan: FrontPlan, rng: np.random.Generator) -> None:
    height = canvas.pixels.shape[0]
    left, bottom = rng.uniform(0.1, 0.6) * plan.width_m * canvas.px_per_m, height - 0.8 * canvas.px_per_m
    colour = sign_colour(rng, 30.0)
    steps = np.cumsum(rng.normal([3.2, 0], [6, 12], (18, 2)), axis=0)
    steps[:, 1] = np.clip(steps[:, 1], -34, 14)
    curve = cv2.resize(steps.astype(np.float32), (2, 90), interpolation=cv2.INTER_CUBIC) + np.array([left, bottom])
    for ink, width in ((contrast(colour), 4), (colour, 2)):
        cv2.polylines(canvas.pixels, [curve.round().astype(np.int32)], False, ink, width, cv2.LINE_AA)


def _paint_poster(canvas: Canvas, plan: FrontPlan, rng: np.random.Generator) -> None:
    left_m, bottom_m = rng.uniform(0.3, plan.width_m - 0.9), rng.uniform(1.0, 1.8)
    view = canvas.region(left_m, bottom_m, left_m + rng.uniform(0.5, 0.8), bottom_m + rng.uniform(0.7, 1.1))
    if view.shape[0] < 8 or view.shape[1] < 8:
        return
    ground, ink = (np.array(vary(GOODS[rng.integers(len(GOODS))], rng, 24.0)) for _ in range(2))
    picture = np.where(rng.random((5, 4, 1)) < 0.5, ground, ink).astype(np.uint8)
    view[:] = cv2.resize(picture, (view.shape[1], view.shape[0]), interpolation=cv2.INTER_NEAREST)
    view[:2] = view[-2:] = (236, 234, 226)
