"""Detection of cells and images without texture, which must not match anything.

For white walls, dark rooms and covered lenses, the descriptor of a cell depends on little but its position: two blank
images would match cell by cell. A cell without texture therefore gets a zero descriptor.
"""

import cv2
import numpy as np
import torch
from jaxtyping import Bool, Float, Float32
from torch import Tensor

from vpr_dhe.records import Grid, Image

RULE = "texture 1"
"""Version of the rule, incremented whenever its results change; part of the keys of feature caches."""

MIN_CONTRAST = 2.0
"""Root mean square of second differences, in grey levels, that separates texture from noise and shading.

Sensor noise with a standard deviation of 12 grey levels stays below it in images of 384 x 288 pixels, and so do
vignettes with their JPEG banding; the median cell of a street image has 19.
"""

MIN_SHARE = 0.08
"""Share of cells with texture below which an image is blank; lit parts of a street at night exceed it."""

KEEPING_SHARE = 2 / 3
"""Share of cells with texture from which all cells are kept, because the others, such as sky, are few."""

# Samples per side of the image; each averages enough pixels to suppress noise.
_SIDE = 96
# Step of the second differences, in samples.
_LAG = 2
# Descriptors also cover neighbouring cells.
_WINDOW_CELLS = 3
_MEDIAN_SIDE = 3


def textured_cells(image: Image, grid: Grid) -> Bool[np.ndarray, " cells"]:
    """Mask of the cells with texture in them or beside them, row-major.

    Texture is measured by second differences, which are zero for constant brightness and linear gradients.
    """
    width, height = (round(_WINDOW_CELLS * _SIDE / count) for count in (grid.columns, grid.rows))
    energy = cv2.boxFilter(_bends(_samples(image)), -1, (width, height), borderType=cv2.BORDER_REFLECT)
    rows, columns = (((np.arange(count) + 0.5) * _SIDE / count).astype(int) for count in grid)
    return (energy[np.ix_(rows, columns)] >= MIN_CONTRAST**2).ravel()


def usable_cells(image: Image, grid: Grid) -> Bool[np.ndarray, " cells"]:
    """Mask of the cells that may match others: none of a blank image, all of a textured one, else those with texture.

    Keeping all cells of textured images keeps the features of published models exact.
    """
    textured = textured_cells(image, grid)
    share = float(textured.mean())
    if share < MIN_SHARE:
        return np.zeros_like(textured)
    return np.ones_like(textured) if share >= KEEPING_SHARE else textured


def without_blank_cells(
    local_map: Float[Tensor, "cells dimension"], image: Image, grid: Grid
) -> Float[Tensor, "cells dimension"]:
    """Set the descriptors of unusable cells in the local map of an image to zero."""
    usable = usable_cells(image, grid)
    if usable.all():
        return local_map
    return local_map * torch.from_numpy(usable).to(local_map.device)[:, None]


def _samples(image: Image) -> Float32[np.ndarray, "96 96"]:
    """Average luminance to a few samples, after removing hot pixels of the sensor."""
    grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    if min(grey.shape) >= 2 * _SIDE:  # else the median would remove texture too
        grey = cv2.medianBlur(grey, _MEDIAN_SIDE)
    interpolation = cv2.INTER_AREA if grey.size > _SIDE**2 else cv2.INTER_LINEAR
    samples = cv2.resize(grey.astype(np.float32), (_SIDE, _SIDE), interpolation=interpolation)
    return cv2.GaussianBlur(samples, (0, 0), 1.0)


def _bends(samples: Float32[np.ndarray, "96 96"]) -> Float32[np.ndarray, "96 96"]:
    """Squared second differences in both directions; zero where a neighbour lies beyond the border."""
    bends = np.zeros_like(samples)
    middle, lag = slice(_LAG, -_LAG), 2 * _LAG
    bends[:, middle] += (samples[:, lag:] - 2 * samples[:, middle] + samples[:, :-lag]) ** 2
    bends[middle] += (samples[lag:] - 2 * samples[middle] + samples[:-lag]) ** 2
    return bends
