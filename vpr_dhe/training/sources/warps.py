"""Pairs out of any photos: two views of one photo, related by a random homography, in different light.

Source: DeTone et al., "Deep Image Homography Estimation", 2016 (arXiv:1606.03798), section 3: corners move by up to a
quarter of the patch's side along each axis.
"""

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import torch
from jaxtyping import Float64

from vpr_dhe.geometry.coordinates import corners
from vpr_dhe.geometry.homography import four_point_homography
from vpr_dhe.images import decode_named
from vpr_dhe.records import Image, Size
from vpr_dhe.training.random_views import relit
from vpr_dhe.training.sources.base import PairSource, TrainingPair

MAX_CORNER_SHIFT = 0.25
"""Of the side of the view, along each axis."""
_LEAST_CROP = 0.6


class WarpedPhotos(PairSource):
    """Views of `view_size`, the network's input, so that their homographies are exact there.

    View A is a random part of the photo, between 60 and 100 % of each side. In view B the corners of A lie elsewhere;
    what lies beyond the photo is its reflection.
    """

    knows_homographies = True

    def __init__(self, paths: Sequence[Path], view_size: Size, description: str) -> None:
        self.paths, self.view_size, self.description = tuple(paths), view_size, description

    def __len__(self) -> int:
        return len(self.paths)

    def pair(self, index: int, random: np.random.Generator) -> TrainingPair:
        """Make two views of a photo."""
        photo = decode_named(self.paths[index])
        crop = random.uniform(_LEAST_CROP, 1.0, 2)
        # Shrunk until one pixel of it is one pixel of A: warping samples single pixels, and would alias.
        size = Size(*(max(1, round(side / part)) for side, part in zip(self.view_size, crop, strict=True)))
        photo = _resized(photo, size)
        left, top = (random.uniform(0, whole - part) for whole, part in zip(size, self.view_size, strict=True))
        to_a = np.array([[1.0, 0.0, -left], [0.0, 1.0, -top], [0.0, 0.0, 1.0]])
        homography = random_homography(self.view_size, random)
        view_a, view_b = (self._view(photo, matrix) for matrix in (to_a, homography @ to_a))
        places = frozenset([str(self.paths[index])])
        return TrainingPair(relit(view_a, random), relit(view_b, random), homography, places, holds_everywhere=True)

    def _view(self, photo: Image, photo_to_view: Float64[np.ndarray, "3 3"]) -> Image:
        warped = cv2.warpPerspective(
            photo, photo_to_view, self.view_size, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT_101
        )
        return warped.astype(np.uint8, copy=False)


def random_homography(
    size: Size, random: np.random.Generator, max_shift: float = MAX_CORNER_SHIFT
) -> Float64[np.ndarray, "3 3"]:
    """The homography by which the corners of an image move by up to `max_shift` of its sides, evenly distributed."""
    square = corners(size)
    moved = square + torch.from_numpy(random.uniform(-max_shift, max_shift, (4, 2)) * np.array(size))
    return four_point_homography(square, moved).numpy()


def _resized(photo: Image, size: Size) -> Image:
    """Squeeze a photo, averaging areas where it gets smaller."""
    shrinking = size.width * size.height < photo.shape[0] * photo.shape[1]
    interpolation = cv2.INTER_AREA if shrinking else cv2.INTER_LINEAR
    return cv2.resize(photo, size, interpolation=interpolation).astype(np.uint8, copy=False)
