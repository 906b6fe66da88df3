"""Images to align, of any size in bounded memory: a working copy, and parts of the original when they are needed."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from math import ceil, floor
from pathlib import Path

import cv2
import numpy as np

from vpr_dhe.errors import ImageError
from vpr_dhe.images.decoding import bounded_size, decode_bounded, decode_image, decode_parts
from vpr_dhe.images.loading import ImageLike, image_size, require_image
from vpr_dhe.images.parts import Part
from vpr_dhe.images.view_names import view_of
from vpr_dhe.records import Image, Size

MAX_WORKING_PIXELS = 1_500_000
"""Pixels of a working copy: SIFT takes about 250 bytes for each."""


@dataclass(frozen=True)
class Picture:
    """An image of size `size`: its working copy, which is the image itself unless that is large, and `cut`.

    `cut` decodes parts of the original, whose colours may be lost.
    """

    size: Size
    working: Image
    cut: Callable[[Sequence[Part]], list[Image]]

    @classmethod
    def of_image(cls, image: ImageLike) -> "Picture":
        """Make a picture of an image in memory; see `require_image`.

        Raises:
            ImageError: as for `require_image`.
        """
        pixels = require_image(image)
        size = image_size(pixels)
        working = bounded_size(size, MAX_WORKING_PIXELS)
        copy = pixels if working == size else _resized(pixels, Part(0, 0, *size, size=working))
        return cls(size, copy, lambda parts: [_resized(pixels, part) for part in parts])

    @classmethod
    def of_file(cls, path: Path) -> "Picture":
        """Make a picture of a file, which is read again for each cut.

        Raises:
            ImageError: if it cannot be read, with its path.
        """
        try:
            if view_of(path) is not None:  # of a panorama, cut out as a whole
                return cls.of_image(decode_image(path))
            decoded = decode_bounded(path, MAX_WORKING_PIXELS)
        except ImageError as error:
            raise ImageError(f"{path}: {error}") from error
        if image_size(decoded.image) == decoded.original_size:
            return cls.of_image(decoded.image)
        return cls(decoded.original_size, decoded.image, partial(decode_parts, path))

    @property
    def is_reduced(self) -> bool:
        """Whether the working copy is smaller than the image."""
        return self.size != image_size(self.working)


def _resized(image: Image, part: Part) -> Image:
    """Cut a part, at whole pixels; averaged if it shrinks."""
    rows = slice(max(0, floor(part.top)), ceil(part.top + part.height))
    columns = slice(max(0, floor(part.left)), ceil(part.left + part.width))
    resized = cv2.resize(image[rows, columns], part.size, interpolation=cv2.INTER_AREA)
    return resized.astype(np.uint8, copy=False)
