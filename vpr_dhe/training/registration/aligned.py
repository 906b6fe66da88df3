"""Pixel-aligned image pairs of two cameras, maps or lighting conditions, for training homography networks.

If the homography of a pair is not the identity, A is warped into the frame of B, and both are cropped to the largest
central rectangle in both, with the aspect ratio of B.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import torch
from jaxtyping import Float64

from vpr_dhe.datasets.pairs import read_pairs
from vpr_dhe.datasets.pairs.base import HomographyPair
from vpr_dhe.datasets.pairs.pictures import resize
from vpr_dhe.errors import DatasetError
from vpr_dhe.geometry.coordinates import corners
from vpr_dhe.geometry.homography import project
from vpr_dhe.images.loading import image_size
from vpr_dhe.images.opened import MIN_SIDE_PX
from vpr_dhe.records import Image, Size
from vpr_dhe.training.registration.split import train_and_val
from vpr_dhe.training.sources.base import PairSource, TrainingPair

_MIN_CROP = 0.75
# Bisection steps: a thousandth of the image.
_SEARCH_STEPS = 10


class AlignedImages(PairSource):
    """Square pixel-aligned pairs.

    Args:
        pairs: pairs with correct homographies.
        side_px: side of the resized images.
        varied: whether to crop at random each time, to at least three quarters of each side, and to mirror at random.
        description: summary of the images.
    """

    knows_homographies = True

    def __init__(self, pairs: Sequence[HomographyPair], side_px: int, *, varied: bool, description: str) -> None:
        self._pairs, self._size, self._varied = tuple(pairs), Size(side_px, side_px), varied
        self.description = description

    def __len__(self) -> int:
        return len(self._pairs)

    def pair(self, index: int, random: np.random.Generator) -> TrainingPair:
        """Align a pair."""
        photos = shared_part(self._pairs[index])
        if self._varied:
            photos = some_part(photos, random)
        image_a, image_b = (resize(photo, self._size) for photo in photos)
        return TrainingPair(image_a, image_b, np.eye(3), frozenset([self._pairs[index].name]), holds_everywhere=True)


class AlignedData(NamedTuple):
    """Pairs for training, and others for validation."""

    training: PairSource
    validation: PairSource


def open_aligned(root: Path, side_px: int) -> AlignedData:
    """Open the pairs of a folder, split by `train_and_val`.

    Raises:
        DatasetError: if a folder is missing or contains no image pairs, or too few.
    """
    train, val = train_and_val(root, lambda part: read_pairs(part).pairs, "pair")
    name = root.resolve().name
    return AlignedData(
        AlignedImages(train, side_px, varied=True, description=f"{len(train)} pairs of {name}"),
        AlignedImages(val, side_px, varied=False, description=f"{len(val)} pairs of {name}"),
    )


class AlignedPair(NamedTuple):
    """Two pixel-aligned images of one size."""

    a: Image
    b: Image


def shared_part(pair: HomographyPair) -> AlignedPair:
    """Warp A into the frame of B, and crop both to a rectangle in both.

    Raises:
        DatasetError: if the overlap is too small.
        ImageError: if a file cannot be read.
    """
    a, b = pair.image_a(), pair.image_b()
    size = image_size(b)
    if image_size(a) == size and np.array_equal(pair.homography, np.eye(3)):
        return AlignedPair(a, b)
    warped = cv2.warpPerspective(a, pair.homography, size).astype(np.uint8, copy=False)
    left, top, right, bottom = _shared_rectangle(pair, image_size(a), size)
    if min(right - left, bottom - top) < MIN_SIDE_PX:
        raise DatasetError(
            f"pair {pair.name}: by its homography the images share less than {MIN_SIDE_PX} x {MIN_SIDE_PX} pixels; "
            "correct it, or leave the pair out"
        )
    return AlignedPair(warped[top:bottom, left:right], b[top:bottom, left:right])


def _shared_rectangle(pair: HomographyPair, size_a: Size, size_b: Size) -> tuple[int, int, int, int]:
    """Largest rectangle within A, with the aspect ratio of B and centred on the overlap."""
    of_a, of_b = project(torch.from_numpy(pair.homography), corners(size_a)), corners(size_b)
    area, shared = cv2.intersectConvexConvex(of_a.float().numpy(), of_b.float().numpy())
    if area == 0:
        return 0, 0, 0, 0
    middle = shared.reshape(-1, 2).mean(axis=0)
    inside, outside = 0.0, 1.0
    for _ in range(_SEARCH_STEPS):
        share = (inside + outside) / 2
        fits = all(
            cv2.pointPolygonTest(shared, (float(x), float(y)), measureDist=False) >= 0
            for x, y in _rectangle(middle, size_b, share)
        )
        inside, outside = (share, outside) if fits else (inside, share)
    (left, top), _, (right, bottom), _ = _rectangle(middle, size_b, inside)
    return int(np.ceil(left)), int(np.ceil(top)), int(right) + 1, int(bottom) + 1


def _rectangle(middle: np.ndarray, size: Size, share: float) -> Float64[np.ndarray, "4 2"]:
    outline = corners(size).numpy()
    return middle + share * (outline - outline.mean(axis=0))


def some_part(pair: AlignedPair, random: np.random.Generator) -> AlignedPair:
    """Crop both at random to at least three quarters of each side, and mirror them at random."""
    height, width = pair.a.shape[:2]
    part_height, part_width = (round(side * random.uniform(_MIN_CROP, 1.0)) for side in (height, width))
    top, left = int(random.integers(height - part_height + 1)), int(random.integers(width - part_width + 1))
    step = -1 if random.random() < 0.5 else 1
    return AlignedPair(*(image[top : top + part_height, left : left + part_width][:, ::step] for image in pair))
