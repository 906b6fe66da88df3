"""Synthetic pairs from any images: a patch, and the patch with its four corners displaced at random.

Source: DeTone et al., "Deep Image Homography Estimation", 2016 (arXiv:1606.03798), section 3: photos resized to
320 x 240, patches of 128 x 128, corners moved by up to 32 pixels along each axis.
"""

import random
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import torch
from jaxtyping import Float64

from vpr_dhe.datasets.pairs.base import HomographyPair, PairLayout, PairSet, true_homography
from vpr_dhe.datasets.pairs.pictures import list_pictures, resize
from vpr_dhe.geometry.coordinates import corners
from vpr_dhe.geometry.homography import four_point_homography
from vpr_dhe.images.decoding import decode_named
from vpr_dhe.records import Image, Size

PHOTO_SIZE = Size(320, 240)
PATCH_SIZE = Size(128, 128)
MAX_OFFSET_PX = 32


def read_warps(root: Path, *, seed: int = 0) -> PairSet:
    """Make one pair per image in a folder and below.

    Patch A is cropped from the image; patch B is the area inside A's displaced corners. Offsets depend only on `seed`
    and the image's path relative to `root`, so adding an image does not change other pairs. Unlike in the source,
    patches are in colour, and offsets are fractions of pixels.

    Raises:
        DatasetError: if the folder contains no images.
    """
    protocol = (
        f"warps of {PATCH_SIZE.width} px patches of photos of {PHOTO_SIZE.width} x {PHOTO_SIZE.height} px, "
        f"corners moved by up to {MAX_OFFSET_PX} px, seed {seed}"
    )
    pairs = tuple(_pair(root / name, name, random.Random(f"{seed}/{name}")) for name in list_pictures(root))
    return PairSet(root.resolve().name, protocol, pairs)


def _pair(path: Path, name: str, generator: random.Random) -> HomographyPair:
    left = _drawn_start(PHOTO_SIZE.width - PATCH_SIZE.width, generator)
    top = _drawn_start(PHOTO_SIZE.height - PATCH_SIZE.height, generator)
    square = corners(PATCH_SIZE)
    offsets = [MAX_OFFSET_PX * (2 * generator.random() - 1) for _ in range(8)]
    moved = square + torch.tensor(offsets, dtype=torch.float64).view(4, 2)
    homography = true_homography(four_point_homography(moved, square).numpy(), name)
    to_patch = np.array([[1.0, 0.0, -left], [0.0, 1.0, -top], [0.0, 0.0, 1.0]])
    return HomographyPair(
        name, "", partial(_patch, path, to_patch), partial(_patch, path, homography @ to_patch), homography
    )


def _drawn_start(room_px: int, generator: random.Random) -> int:
    """Random start of the patch along one axis, such that displaced corners stay inside the image."""
    # Only random() is guaranteed to be reproducible across versions of Python.
    return MAX_OFFSET_PX + int(generator.random() * (room_px - 2 * MAX_OFFSET_PX + 1))


def _patch(path: Path, photo_to_patch: Float64[np.ndarray, "3 3"]) -> Image:
    photo = resize(decode_named(path), PHOTO_SIZE)
    return cv2.warpPerspective(photo, photo_to_patch, PATCH_SIZE).astype(np.uint8, copy=False)


LAYOUT = PairLayout("warps", "a folder of photos, to be warped", lambda _: False, read_warps)
