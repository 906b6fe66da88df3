"""Labels of sky cells. Sky must be unreliable: clouds match between views of a street, but do not belong to the place.

Sky is assumed to be bright, not warm in colour, smooth, and connected to the upper border. Similar smooth walls are
labelled as well, but have little to match.
"""

import cv2
import numpy as np
from jaxtyping import Bool, Float32

from vpr_dhe.records import Grid, Image

_SIDE = 160
_MIN_BRIGHTNESS = 90
# Maximum excess of red over blue, as in clouds at sunset.
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
    """Mask of sky in a small version of the image, as 0 and 1."""
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
    """Copy of an image with clouds of random shape, contrast and colour in its sky.

    Labelled sky is smooth; textured clouds, which cause wrong matches between places, would otherwise be missing.
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
