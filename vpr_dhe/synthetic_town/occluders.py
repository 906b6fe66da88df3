"""Occluders in the streets: cars, people and trees."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from vpr_dhe.records import Image
from vpr_dhe.synthetic_town.billboards import Billboard, car_end, car_side, pedestrian, tree
from vpr_dhe.synthetic_town.streets import Street
from vpr_dhe.synthetic_town.visibility import Box, View

# Nearer billboards would look flat.
_MIN_DISTANCE_M = 3.5


@dataclass(frozen=True, eq=False)
class Model:
    """Billboards of an occluder from its side and its end, and its distance beyond the kerb (negative: on the road)."""

    side: Billboard
    end: Billboard
    beyond_kerb_m: float


@dataclass(frozen=True, eq=False)
class Occluder:
    """Occluder in a street; views along the street show its end, others its side."""

    model: Model
    x_m: float
    y_m: float
    street_heading_deg: float


def make_models(rng: np.random.Generator) -> list[Model]:
    """Make models of occluders in realistic proportions."""
    cars = [Model(car_side(rng), car_end(rng), -1.1) for _ in range(9)]
    trees = [Model(board, board, 0.6) for board in (tree(rng) for _ in range(5))]
    people = [Model(board, board, rng.uniform(0.4, 2.0)) for board in (pedestrian(rng) for _ in range(6))]
    return cars + trees + people


def scatter(
    streets: Sequence[Street], models: Sequence[Model], per_10_m: float, rng: np.random.Generator
) -> list[Occluder]:
    """Place occluders at random along the streets, except on crossings."""
    occluders = []
    for street in streets:
        crossing = [other for other in streets if other.north_south != street.north_south]
        for _ in range(rng.poisson(per_10_m * (street.end_m - street.start_m) / 10)):
            along_m = rng.uniform(street.start_m + 3, street.end_m - 3)
            model, hand = models[int(rng.integers(len(models)))], rng.choice([-1, 1])
            if all(abs(along_m - other.centre_m) > other.width_m / 2 + 1 for other in crossing):
                right_m = hand * (street.width_m / 2 - street.pavement_m + model.beyond_kerb_m)
                occluders.append(Occluder(model, *street.point(along_m, right_m), street.heading_deg))
    return occluders


def paint_occluders(view: View, image: Image, occluders: Sequence[Occluder]) -> None:
    """Draw occluders onto a supersampled image, the farthest first."""
    camera = view.camera
    offsets_m = [(occluder.x_m - camera.x_m, occluder.y_m - camera.y_m) for occluder in occluders]
    for number in sorted(range(len(occluders)), key=lambda number: -math.hypot(*offsets_m[number])):
        bearing_deg = math.degrees(math.atan2(*offsets_m[number]))
        ahead_m = math.hypot(*offsets_m[number]) * math.cos(math.radians(bearing_deg - camera.heading_deg))
        if ahead_m > _MIN_DISTANCE_M:
            occluder = occluders[number]
            along_street = abs(math.cos(math.radians(bearing_deg - occluder.street_heading_deg))) > 0.8
            board = occluder.model.end if along_street else occluder.model.side
            _paint(view, image, board, occluder.x_m, occluder.y_m)


def _paint(view: View, image: Image, board: Billboard, x_m: float, y_m: float) -> None:
    """Blend one billboard, parallel to the image, over everything farther away."""
    ends = view.projection @ np.array([[x_m, y_m, 0.0, 1.0], [x_m, y_m, board.height_m, 1.0]]).T
    depth_m = float(ends[2].min())
    if depth_m < 0.5:
        return
    (x, _), (bottom, top) = (ends[:2] / ends[2]).tolist()
    width_px, height_px = round(board.width_m * view.intrinsics[0, 0] / depth_m), round(bottom - top)
    sprite_box = Box(round(x - width_px / 2), round(top), width_px, height_px)
    box = sprite_box.within(view.size)
    if box.width < 1 or box.height < 1:
        return
    scaled = cv2.resize(board.image, (width_px, height_px), interpolation=cv2.INTER_AREA)
    sprite = scaled[Box(box.left - sprite_box.left, box.top - sprite_box.top, box.width, box.height).window]
    # With a tolerance, so that the ground at its foot does not cut off the lowest row.
    nearer = 1.01 / depth_m > view.inverse_depth_map(box)
    opacity = (sprite[:, :, 3:] * nearer[:, :, None]).astype(np.float32) / 255
    region = image[box.window]
    region += ((sprite[:, :, :3].astype(np.int16) - region) * opacity).astype(np.int16).astype(np.uint8)
