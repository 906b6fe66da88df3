"""Resized rectangles of opened image files, without a copy of the whole image."""

from collections.abc import Callable, Iterator, Sequence
from math import ceil, floor
from typing import NamedTuple

import numpy as np
import PIL.Image
from jaxtyping import UInt8

from vpr_dhe.records import Image, Size

TURNS = {
    2: PIL.Image.Transpose.FLIP_LEFT_RIGHT,
    3: PIL.Image.Transpose.ROTATE_180,
    4: PIL.Image.Transpose.FLIP_TOP_BOTTOM,
    5: PIL.Image.Transpose.TRANSPOSE,
    6: PIL.Image.Transpose.ROTATE_270,
    7: PIL.Image.Transpose.TRANSVERSE,
    8: PIL.Image.Transpose.ROTATE_90,
}
"""Transposition that makes an image upright, by EXIF orientation; other orientations are upright."""

SIDEWAYS = frozenset({5, 6, 7, 8})
"""EXIF orientations that swap width and height."""

# Orientations in which stored columns, or stored rows, run opposite to the corresponding axis of the upright image.
_COLUMNS_REVERSED, _ROWS_REVERSED = frozenset({2, 3, 7, 8}), frozenset({3, 4, 6, 7})
_STRIP_PIXELS = 1_000_000


class Part(NamedTuple):
    """Rectangle of an image, in pixels from its left and top edge (not centres), and the size to resize it to."""

    left: float
    top: float
    width: float
    height: float
    size: Size


def upright(image: PIL.Image.Image, orientation: int) -> PIL.Image.Image:
    """Rotate or flip an image by its EXIF orientation."""
    return image.transpose(TURNS[orientation]) if orientation in TURNS else image


def upright_size(stored: Size, orientation: int) -> Size:
    """Size of an image after `upright`."""
    return Size(stored.height, stored.width) if orientation in SIDEWAYS else stored


def load_parts(
    file: PIL.Image.Image,
    orientation: int,
    parts: Sequence[Part],
    to_rgb: Callable[[PIL.Image.Image], PIL.Image.Image],
    *,
    grey: bool = False,
) -> list[Image]:
    """Decode parts of an upright image, resized bilinearly with antialiasing if their size differs.

    A JPEG is decoded at a half, a quarter or an eighth of its size if all parts shrink that much.

    Args:
        file: opened file that is not loaded yet.
        orientation: EXIF orientation of the file; the parts refer to the upright image.
        parts: rectangles inside the image.
        to_rgb: conversion of stored pixels.
        grey: whether a JPEG may be decoded in greyscale, which takes a quarter of the memory.
    """
    stored = [_stored(part, Size(*file.size), orientation) for part in parts]
    shrinking = min((min(part.width / part.size.width, part.height / part.size.height) for part in stored), default=1.0)
    wanted = Size(*(max(1, ceil(side / max(1.0, shrinking))) for side in file.size))
    width = file.size[0]
    drafted = file.draft("L" if grey else None, wanted)  # has an effect on JPEG only
    scale = drafted[1][2] / width if drafted else 1.0
    file.load()
    return [_resized(file, _scaled(part, scale), orientation, to_rgb) for part in stored]


def _stored(part: Part, stored: Size, orientation: int) -> Part:
    """Convert a part of the upright image to the stored image."""
    left, top, width, height, size = part
    if orientation in SIDEWAYS:
        left, top, width, height, size = top, left, height, width, Size(size.height, size.width)
    if orientation in _COLUMNS_REVERSED:
        left = stored.width - left - width
    if orientation in _ROWS_REVERSED:
        top = stored.height - top - height
    return Part(left, top, width, height, size)


def _scaled(part: Part, scale: float) -> Part:
    return Part(*(scale * side for side in part[:4]), size=part.size)


def _resized(
    file: PIL.Image.Image, part: Part, orientation: int, to_rgb: Callable[[PIL.Image.Image], PIL.Image.Image]
) -> Image:
    """Resize a part in strips, so that only one strip at a time is converted."""
    rows = np.concatenate([_strip(file, strip, to_rgb) for strip in _strips(part)])
    return np.array(upright(PIL.Image.fromarray(rows), orientation), dtype=np.uint8)


def _strips(part: Part) -> Iterator[Part]:
    """Split a part into strips, from top to bottom."""
    row_height = part.height / part.size.height
    rows = max(1, floor(_STRIP_PIXELS / (part.width * row_height)))
    for first in range(0, part.size.height, rows):
        count = min(rows, part.size.height - first)
        top = part.top + first * row_height
        yield Part(part.left, top, part.width, count * row_height, Size(part.size.width, count))


def _strip(
    file: PIL.Image.Image, part: Part, to_rgb: Callable[[PIL.Image.Image], PIL.Image.Image]
) -> UInt8[np.ndarray, "rows columns 3"]:
    # The filter also uses pixels around the part, as when resizing the whole image.
    margin = ceil(max(part.width / part.size.width, part.height / part.size.height, 1.0))
    left, top = max(0, floor(part.left) - margin), max(0, floor(part.top) - margin)
    right = min(file.width, ceil(part.left + part.width) + margin)
    bottom = min(file.height, ceil(part.top + part.height) + margin)
    strip = to_rgb(file.crop((left, top, right, bottom)))
    # Rounded edges may lie beyond the image by a rounding error.
    box = (
        part.left - left,
        part.top - top,
        min(part.left + part.width, file.width) - left,
        min(part.top + part.height, file.height) - top,
    )
    return np.asarray(strip.resize(part.size, PIL.Image.Resampling.BILINEAR, box=box))
