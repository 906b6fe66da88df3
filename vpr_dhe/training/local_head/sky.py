"""Cells that show sky, as labels: clouds stay where they are in all views of a street, and pass to another place.

Sky is taken to be light, not warm, smooth, and connected to the upper border. Smooth walls of that kind are labelled
with it, which have little to match either.
"""

import cv2
import numpy as np
from jaxtyping import Bool

from vpr_dhe.records import Grid, Image

_SIDE = 160
_MIN_BRIGHTNESS = 90
# Red may exceed blue by this: clouds in the evening.
_MAX_WARMTH = 6
_MAX_GRADIENT = 7.0
_TOP_ROWS = 4
_MIN_SHARE = 0.6


def sky_cells(image: Image, grid: Grid) -> Bool[np.ndarray, " cells"]:
    """Mask of the cells that mostly show sky, row-major."""
    small = cv2.resize(image, (_SIDE, _SIDE), interpolation=cv2.INTER_AREA)
    pixels = cv2.GaussianBlur(small, (0, 0), 1.0).astype(np.float32)
    grey = pixels.mean(axis=2)
    gradient = np.hypot(*(cv2.Sobel(grey, -1, right, 1 - right, scale=1 / 8) for right in (1, 0)))
    cool = pixels[..., 2] >= pixels[..., 0] - _MAX_WARMTH
    candidates = (grey > _MIN_BRIGHTNESS) & cool & (gradient < _MAX_GRADIENT)
    _, regions = cv2.connectedComponents(candidates.astype(np.uint8), connectivity=4)
    at_top = np.unique(regions[:_TOP_ROWS][candidates[:_TOP_ROWS]])
    sky = np.isin(regions, at_top).astype(np.float32)
    return (cv2.resize(sky, (grid.columns, grid.rows), interpolation=cv2.INTER_AREA) > _MIN_SHARE).ravel()
