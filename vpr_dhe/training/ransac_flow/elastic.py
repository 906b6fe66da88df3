"""Pairs with a smooth distortion in addition to a known homography, to simulate non-planar scenes."""

from dataclasses import replace

import cv2
import numpy as np
from jaxtyping import Float32

from vpr_dhe.images.loading import image_size
from vpr_dhe.records import Size
from vpr_dhe.training.sources.base import PairSource, TrainingPair

_MIN_MESHES, _MAX_MESHES = 3, 6


class ElasticPairs(PairSource):
    """Pairs of a source; if the homography holds for all of A, A is distorted and the pair contains the displacement.

    The displacement is drawn at the nodes of a grid of 3 to 6 cells per side, with a standard deviation along each axis
    of up to `largest` times the shorter side, and interpolated smoothly.
    """

    def __init__(self, source: PairSource, largest: float = 0.05) -> None:
        self._source, self._largest = source, largest
        self.knows_homographies = source.knows_homographies
        self.description = f"{source.description}, distorted by up to {largest:g} of a side"

    def __len__(self) -> int:
        return len(self._source)

    def pair(self, index: int, random: np.random.Generator) -> TrainingPair:
        """Make a pair of the source and distort A."""
        pair = self._source.pair(index, random)
        if not pair.holds_everywhere:
            return pair
        size = image_size(pair.image_a)
        residual_px = smooth_displacement(size, self._largest * min(size) * random.uniform(0, 1), random)
        columns, rows = (np.arange(side, dtype=np.float32) for side in size)
        map_x, map_y = columns + residual_px[..., 0], rows[:, None] + residual_px[..., 1]
        distorted = cv2.remap(pair.image_a, map_x, map_y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT_101)
        return replace(
            pair, image_a=distorted.astype(np.uint8, copy=False), residual_px=residual_px, holds_everywhere=False
        )


def smooth_displacement(
    size: Size, deviation_px: float, random: np.random.Generator
) -> Float32[np.ndarray, "height width 2"]:
    """Random smooth displacement (x, y) in pixels."""
    meshes = int(random.integers(_MIN_MESHES, _MAX_MESHES + 1))
    knots = random.normal(0, deviation_px, (meshes + 1, meshes + 1, 2)).astype(np.float32)
    return cv2.resize(knots, size, interpolation=cv2.INTER_CUBIC).astype(np.float32, copy=False)
