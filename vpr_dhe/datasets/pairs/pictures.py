"""Helpers for image files of pair sets."""

from pathlib import Path

import numpy as np
import PIL.ExifTags
import PIL.Image

from vpr_dhe.errors import BadInputError, DatasetError, ImageError
from vpr_dhe.images import parts
from vpr_dhe.images.listing import list_images
from vpr_dhe.images.pillow import open_image
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


def upright_size(path: Path) -> Size:
    """Read the size of the decoded image from the file's header.

    Raises:
        ImageError: if the file is not an image.
    """
    try:
        with open_image(path) as file:
            return parts.upright_size(Size(*file.size), _orientation(file))
    except Exception as error:  # decoders raise errors of any kind
        raise ImageError(f"{path}: not an image that can be read ({type(error).__name__})") from error


def _orientation(file: PIL.Image.Image) -> int:
    if file.format == "TIFF":  # Pillow rotates these itself
        return 1
    try:
        # The method of the base class, because PNG's own decodes all pixels.
        return int(PIL.Image.Image.getexif(file).get(PIL.ExifTags.Base.Orientation, 1))
    except Exception:  # damaged blocks raise errors of any kind
        return 1


def resize(image: Image, size: Size) -> Image:
    """Resize bilinearly with antialiasing; pixels move by `coordinates.resizing`."""
    return np.array(PIL.Image.fromarray(image).resize(size, PIL.Image.Resampling.BILINEAR), dtype=np.uint8)
