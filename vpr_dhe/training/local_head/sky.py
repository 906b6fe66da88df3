"""Cells that show sky, as labels: clouds stay where they are in all views of a street, and pass to another place.

Sky is taken to be light, not warm, smooth, and connected to the upper border. Smooth walls of that kind are labelled
with it, which have little to match either.
"""

import cv2
import numpy as np
from jaxtyping import Bool, Float32

from vpr_dhe.records import Grid, Image

_SIDE = 160
_MIN_BRIGHTNESS = 90
# Red may exceed blue by this: clouds in the evening.
_MAX_WARMTH = 6
_MAX_GRADIENT = 7.0
_TOP_ROWS = 4
_MIN_SHARE = 0.6
_OCTAVES = range(2, 8)


def sky_cells(image: Image, grid: Grid) -> Bool[np.ndarray, " cells"]:
    """Mask of the cells that mostly show sky, row-major."""
    sky = _sky(image)
    return (cv2.resize(sky, (grid.columns, grid.rows), interpolation=cv2.INTER_AREA) > _MIN_SHARE).ravel()


def _sky(image: Image) -> Float32[np.ndarray, "side side"]:
    """One where a small version of the image shows sky, and zero elsewhere."""
    small = cv2.resize(image, (_SIDE, _SIDE), interpolation=cv2.INTER_AREA)
    pixels = cv2.GaussianBlur(small, (0, 0), 1.0).astype(np.float32)
    grey = pixels.mean(axis=2)
    gradient = np.hypot(*(cv2.Sobel(grey, -1, right, 1 - right, scale=1 / 8) for right in (1, 0)))
    cool = pixels[..., 2] >= pixels[..., 0] - _MAX_WARMTH
    candidates = (grey > _MIN_BRIGHTNESS) & cool & (gradient < _MAX_GRADIENT)
    _, regions = cv2.connectedComponents(candidates.astype(np.uint8), connectivity=4)
    at_top = np.unique(regions[:_TOP_ROWS][candidates[:_TOP_ROWS]])
    return np.isin(regions, at_top).astype(np.float32)


def with_clouds(image: Image, random: np.random.Generator) -> Image:
    """Copy of an image with other clouds in its sky, of random shape, contrast and colour.

    Labelled sky is smooth, and clouds with much texture are what two places seem to share.
    """
    height, width = image.shape[:2]
    share = cv2.resize(_sky(image), (width, height), interpolation=cv2.INTER_LINEAR)[..., None]
    thickness = _thickness(height, width, random)[..., None]
    # Clear sky is grey to blue, clouds are nearly grey.
    above = np.cumsum(random.uniform((60, 0, 0), (190, 40, 40)))
    cloud = random.uniform(120, 255) * random.uniform(0.96, 1.04, 3)
    clouds = np.clip(thickness * cloud + (1 - thickness) * above, 0, 255)
    return np.rint(share * clouds + (1 - share) * image).astype(np.uint8)


def _thickness(height: int, width: int, random: np.random.Generator) -> Float32[np.ndarray, "height width"]:
    """Sum of smooth noise in octaves, between 0 and 1."""
    roughness, contrast = random.uniform(0.6, 1.1), random.uniform(0.15, 0.5)
    noise = np.zeros((height, width), np.float32)
    for octave in _OCTAVES:
        coarse = random.normal(size=(2**octave, 2 ** (octave + random.integers(-1, 1, endpoint=True)))).astype(
            np.float32
        )
        noise += cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC) / 2 ** (roughness * octave)
    return np.clip((noise - noise.mean()) / noise.std() * contrast + random.uniform(0.3, 0.7), 0, 1)
