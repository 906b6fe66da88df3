"""Helpers for image files of pair sets."""

from pathlib import Path

import numpy as np
import PIL.Image

from vpr_dhe.errors import BadInputError, DatasetError, ImageError
from vpr_dhe.images.listing import list_images
from vpr_dhe.images.opened import size_in_file
from vpr_dhe.records import Image, Size


def list_pictures(folder: Path) -> list[str]:
    """List all images in a folder and below, relative to it and sorted.

    Raises:
        DatasetError: if the folder is missing or holds no images.
    """
    try:
        return list_images(folder)
    except BadInputError as error:
        raise DatasetError(str(error)) from error


def size_of(path: Path) -> Size:
    """Size of the decoded image, from the header of its file.

    Raises:
        ImageError: if the file is not an image.
    """
    size = size_in_file(path)
    if size is None:
        raise ImageError(f"{path}: not an image that can be read")
    return size


def resize(image: Image, size: Size) -> Image:
    """Resize bilinearly with antialiasing; pixels move by `coordinates.resizing`."""
    return np.array(PIL.Image.fromarray(image).resize(size, PIL.Image.Resampling.BILINEAR), dtype=np.uint8)
