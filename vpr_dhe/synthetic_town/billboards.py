"""Painted cut-outs of cars, people and trees."""

from dataclasses import dataclass
from typing import TypeAlias

import cv2
import numpy as np
from jaxtyping import UInt8

from vpr_dhe.synthetic_town.canvas import smooth_noise
from vpr_dhe.synthetic_town.plans import Colour, vary

Sprite: TypeAlias = UInt8[np.ndarray, "_height _width 4"]

_PX_PER_M = 64.0
_CAR_COLOURS: tuple[Colour, ...] = ((150, 26, 30), (40, 62, 110), (188, 190, 192), (40, 40, 44), (226, 224, 218))


@dataclass(frozen=True, eq=False)
class Billboard:
    """Painted cut-out: RGBA image (rows top to bottom), with its size in metres."""

    image: Sprite
    width_m: float
    height_m: float


def car_side(rng: np.random.Generator) -> Billboard:
    """Paint a car from its side."""
    width_m, height_m = rng.uniform(3.9, 4.6), rng.uniform(1.4, 1.8)
    sprite = _blank(width_m, height_m)
    paint = vary(_CAR_COLOURS[rng.integers(len(_CAR_COLOURS))], rng, 10.0)
    roof = rng.uniform(0.22, 0.34)
    body = [(0.02, 0.8), (0.02, 0.5), (0.16, 0.44), (roof, 0.05), (0.72, 0.05), (0.9, 0.45), (0.98, 0.52), (0.98, 0.8)]
    _polygon(sprite, body, paint)
    _polygon(sprite, [(0.22, 0.43), (roof + 0.02, 0.12), (0.5, 0.12), (0.5, 0.43)], (46, 56, 66))
    _polygon(sprite, [(0.53, 0.43), (0.53, 0.12), (0.7, 0.12), (0.83, 0.43)], (52, 62, 72))
    _polygon(sprite, [(0.02, 0.74), (0.98, 0.74), (0.98, 0.8), (0.02, 0.8)], (36, 36, 38))
    radius = round(0.31 * _PX_PER_M)
    for part in (0.2, 0.79):
        centre = (round(part * sprite.shape[1]), sprite.shape[0] - radius - 1)
        cv2.circle(sprite, centre, radius, (24, 24, 26, 255), -1)
        cv2.circle(sprite, centre, radius * 3 // 5, (150, 150, 154, 255), -1)
    _ground_shadow(sprite)
    return Billboard(sprite, width_m, height_m)


def car_end(rng: np.random.Generator) -> Billboard:
    """Paint a car from its front or rear."""
    width_m, height_m = rng.uniform(1.65, 1.85), rng.uniform(1.4, 1.8)
    sprite = _blank(width_m, height_m)
    paint = vary(_CAR_COLOURS[rng.integers(len(_CAR_COLOURS))], rng, 10.0)
    for left in (0.04, 0.76):
        _polygon(sprite, [(left, 0.7), (left + 0.2, 0.7), (left + 0.2, 1.0), (left, 1.0)], (24, 24, 26))
    _polygon(sprite, [(0.02, 0.85), (0.02, 0.45), (0.18, 0.05), (0.82, 0.05), (0.98, 0.45), (0.98, 0.85)], paint)
    _polygon(sprite, [(0.13, 0.43), (0.23, 0.11), (0.77, 0.11), (0.87, 0.43)], (50, 60, 70))
    lamp = (236, 226, 190) if rng.random() < 0.5 else (170, 30, 30)
    for left in (0.06, 0.76):
        _polygon(sprite, [(left, 0.52), (left + 0.18, 0.52), (left + 0.18, 0.64), (left, 0.64)], lamp)
    _polygon(sprite, [(0.36, 0.68), (0.64, 0.68), (0.64, 0.78), (0.36, 0.78)], (230, 228, 210))
    _ground_shadow(sprite)
    return Billboard(sprite, width_m, height_m)


def pedestrian(rng: np.random.Generator) -> Billboard:
    """Paint a walking person."""
    height_m = rng.uniform(1.55, 1.9)
    sprite = _blank(0.7, height_m)
    coat, trousers = vary((110, 90, 86), rng, 40.0), vary((52, 56, 70), rng, 22.0)
    stride = rng.uniform(0.05, 0.2)
    _polygon(sprite, [(0.38, 0.5), (0.55, 0.5), (0.5 - stride, 0.98), (0.36 - stride, 0.98)], trousers)
    _polygon(sprite, [(0.45, 0.5), (0.62, 0.5), (0.64 + stride, 0.98), (0.5 + stride, 0.98)], trousers)
    _polygon(sprite, [(0.3, 0.17), (0.7, 0.17), (0.76, 0.52), (0.64, 0.57), (0.36, 0.57), (0.24, 0.52)], coat)
    skin = vary((196, 152, 124), rng, 30.0)
    axes = (round(0.1 * _PX_PER_M), round(0.13 * _PX_PER_M))
    centre = (sprite.shape[1] // 2, axes[1] + 1)
    cv2.ellipse(sprite, centre, axes, 0, 0, 360, (*skin, 255), -1)
    cv2.ellipse(sprite, centre, axes, 0, 180, 360, (*vary((60, 44, 34), rng, 20.0), 255), -1)
    _ground_shadow(sprite)
    return Billboard(sprite, 0.7, height_m)


def tree(rng: np.random.Generator) -> Billboard:
    """Paint a street tree: trunk and a ragged crown of leaves."""
    width_m, height_m = rng.uniform(2.6, 4.2), rng.uniform(4.5, 7.0)
    sprite = _blank(width_m, height_m)
    height, width = sprite.shape[:2]
    _polygon(sprite, [(0.47, 0.3), (0.53, 0.3), (0.55, 1.0), (0.45, 1.0)], (78, 62, 48))
    y, x = np.mgrid[:height, :width].astype(np.float32)
    oval = 1 - ((x / width - 0.5) / 0.5) ** 2 - ((y / height - 0.34) / 0.34) ** 2
    ragged = 1.3 * smooth_noise(height, width, 26.0, rng) + 0.7 * smooth_noise(height, width, 7.0, rng) - 1.25
    crown = (oval + ragged > 0) & (oval > 0)
    leaves = 46 * smooth_noise(height, width, 9.0, rng) + 26 * smooth_noise(height, width, 3.0, rng)
    light = 52 + leaves - 22 * y / height
    tint = np.array([rng.uniform(0.7, 0.95), 1.12, rng.uniform(0.4, 0.62)], np.float32)
    sprite[crown, :3] = np.clip(light[crown][:, None] * tint, 0, 255).astype(np.uint8)
    sprite[crown, 3] = 255
    return Billboard(sprite, width_m, height_m)


def _blank(width_m: float, height_m: float) -> Sprite:
    return np.zeros((round(height_m * _PX_PER_M), round(width_m * _PX_PER_M), 4), np.uint8)


def _polygon(sprite: Sprite, points: list[tuple[float, float]], colour: Colour) -> None:
    """Fill a polygon whose points are fractions of the sprite's width and height, y down."""
    scaled = np.array(points) * (sprite.shape[1] - 1, sprite.shape[0] - 1)
    cv2.fillPoly(sprite, [scaled.round().astype(np.int32)], (*colour, 255))


def _ground_shadow(sprite: Sprite) -> None:
    height, width = sprite.shape[:2]
    rows = sprite[height - max(height // 24, 2) :]
    rows[rows[:, :, 3] == 0] = (20, 20, 22, 150)
    rows[:, : width // 12, 3] //= 2
    rows[:, width - width // 12 :, 3] //= 2
