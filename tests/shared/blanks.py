"""Images that show nothing: of dark rooms, white walls and covered lenses, as cameras take them."""

import io
from dataclasses import replace

import numpy as np
import PIL.Image

from vpr_dhe.features.base import Extractor
from vpr_dhe.features.texture import without_blank_cells
from vpr_dhe.records import Image


def noise(level, spread, size=(288, 384), seed=0) -> Image:
    """One brightness with sensor noise of a standard deviation."""
    values = level + np.random.default_rng(seed).normal(0, spread, (*size, 3))
    return np.clip(values, 0, 255).astype(np.uint8)


def shaded_wall(depth, spread=2.0, seed=0) -> Image:
    """A white wall under a lamp: darker towards the corners, by a number of grey levels, with noise."""
    y, x = np.mgrid[-1:1:288j, -1:1:384j]
    values = 220 - depth * (x**2 + y**2)[..., None] / 2
    return np.clip(values + np.random.default_rng(seed).normal(0, spread, (288, 384, 3)), 0, 255).astype(np.uint8)


def hot_pixels(image, count=30, seed=0) -> Image:
    """The same image of a sensor with pixels that are always white."""
    random, marked = np.random.default_rng(seed), image.copy()
    height, width = image.shape[:2]
    marked[random.integers(0, height, count), random.integers(0, width, count)] = 255
    return marked


def as_jpeg(image, quality=75) -> Image:
    """The image after a JPEG."""
    content = io.BytesIO()
    PIL.Image.fromarray(image).save(content, "JPEG", quality=quality)
    return np.array(PIL.Image.open(content))


BLANKS = {
    "black": np.zeros((288, 384, 3), np.uint8),
    "white": np.full((288, 384, 3), 255, np.uint8),
    "dark room": noise(4, 2),
    "dark room, high gain": noise(12, 8),
    "dark room, JPEG": as_jpeg(noise(6, 4), 60),
    "dark room, large": noise(6, 12, (960, 1280)),
    "hot pixels": hot_pixels(noise(4, 2)),
    "white wall": noise(235, 2),
    "shaded wall": shaded_wall(40),
    "wall under a lamp, JPEG": as_jpeg(shaded_wall(120), 60),
    "small": noise(5, 2, (60, 80)),
}
"""Blank images by name."""


def blank_aware(extractor: Extractor) -> Extractor:
    """The extractor, whose cells without texture get the descriptor zero, as those of real models do."""
    extract = extractor.extract

    def extract_masked(images):
        return [
            replace(features, local_map=without_blank_cells(features.local_map, image, features.grid))
            for image, features in zip(images, extract(images), strict=True)
        ]

    extractor.extract = extract_masked
    return extractor
