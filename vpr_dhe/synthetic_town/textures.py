"""Textures of surfaces, painted or cut from photos on first use, and cached in all resolutions used."""

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np

from vpr_dhe.images.decoding import decode_named
from vpr_dhe.records import Image
from vpr_dhe.synthetic_town.arrays import read_only
from vpr_dhe.synthetic_town.canvas import Canvas
from vpr_dhe.synthetic_town.fronts import cut_front, paint_front
from vpr_dhe.synthetic_town.grounds import paint_crossing, paint_road
from vpr_dhe.synthetic_town.plans import CrossingPlan, FrontPlan, PlainPlan, Plan, RoadPlan
from vpr_dhe.synthetic_town.signs import paint_sign, sign_colour
from vpr_dhe.synthetic_town.surfaces import Facade

_PLAIN_PX_PER_M = 16.0


class Textures:
    """Textures of one town, determined by its seed and the number of the surface.

    Fronts are cut from `photos` if there are any, and painted otherwise.
    """

    def __init__(self, seed: int, photos: Sequence[Path] = ()) -> None:
        self._seed, self._photos = seed, photos
        self._kept: dict[tuple[int, int, int], Image] = {}

    def get(self, facade: Facade, halvings_x: int = 0, halvings_y: int = 0) -> Image:
        """Return a texture, halved in width and height; rows run from the surface's top to its bottom."""
        key = (facade.index, halvings_x, halvings_y)
        if key not in self._kept:
            self._kept[key] = read_only(self._make(facade, halvings_x, halvings_y))
        return self._kept[key]

    def _make(self, facade: Facade, halvings_x: int, halvings_y: int) -> Image:
        if halvings_x == halvings_y == 0:
            return self._full(facade.plan, np.random.default_rng([self._seed, 3, facade.index]))
        if halvings_x > halvings_y:
            finer = self.get(facade, halvings_x - 1, halvings_y)
            size = (finer.shape[1] // 2, finer.shape[0])
        else:
            finer = self.get(facade, halvings_x, halvings_y - 1)
            size = (finer.shape[1], finer.shape[0] // 2)
        return cv2.resize(finer, size, interpolation=cv2.INTER_AREA)

    def _full(self, plan: Plan, rng: np.random.Generator) -> Image:
        if self._photos and isinstance(plan, FrontPlan):
            return cut_front(plan, decode_named(self._photos[int(rng.integers(len(self._photos)))]), rng)
        return _paint(plan, rng)


def _paint(plan: Plan, rng: np.random.Generator) -> Image:
    match plan:
        case FrontPlan():
            return paint_front(plan, rng)
        case PlainPlan():
            return _paint_plain(plan, rng)
        case RoadPlan():
            return paint_road(plan, rng)
        case CrossingPlan():
            return paint_crossing(plan, rng)


def _paint_plain(plan: PlainPlan, rng: np.random.Generator) -> Image:
    """Paint a bare wall or a roof."""
    canvas = Canvas.of(plan.material, (plan.width_m, plan.height_m), _PLAIN_PX_PER_M, plan.colour, rng)
    if plan.may_advertise and rng.random() < 0.4:
        top_m = plan.height_m - rng.uniform(0.8, 1.6)
        box_m = (0.8, top_m - 2.2, plan.width_m - 0.8, top_m)
        paint_sign(canvas, box_m, sign_colour(rng, 10.0), rng, opacity=0.6)
    return canvas.pixels
