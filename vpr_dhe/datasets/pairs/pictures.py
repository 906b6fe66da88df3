"""What readers of pair sets need of image files besides decoding them."""

from pathlib import Path

import numpy as np
import PIL.ExifTags
import PIL.Image

from vpr_dhe.errors import BadInputError, DatasetError, ImageError
from vpr_dhe.images import list_images
from vpr_dhe.records import Image, Size

# EXIF orientations that lay a picture on its side.
_QUARTER_TURNS = frozenset({5, 6, 7, 8})


def list_pictures(folder: Path) -> list[str]:
    """Paths, relative to `folder` and sorted, of all images in it and below.

    Raises:
        DatasetError: if the folder is missing or holds none.
    """
    try:
        return list_images(folder)
    except BadInputError as error:
        raise DatasetError(str(error)) from error


def upright_size(path: Path) -> Size:
    """Width and height that the decoded image will have, from the file's header alone.

    Raises:
        ImageError: if the file is no image.
    """
    try:
        with PIL.Image.open(path) as file:
            size, turned = Size(*file.size), _orientation(file) in _QUARTER_TURNS
    except Exception as error:  # decoders raise whatever the bytes lead them to
        raise ImageError(f"{path}: not an image that can be read ({type(error).__name__})") from error
    return Size(size.height, size.width) if turned else size


def _orientation(file: PIL.Image.Image) -> int:
    try:
        # The base class reads what the header gave; PNG's own method decodes all pixels first.
        return int(PIL.Image.Image.getexif(file).get(PIL.ExifTags.Base.Orientation, 1))
    except Exception:  # a damaged block raises whatever its bytes lead to
        return 1


def resize(image: Image, size: Size) -> Image:
    """Resize bilinearly, without aliasing where the image gets smaller; pixels move by `coordinates.resizing`."""
    return np.array(PIL.Image.fromarray(image).resize(size, PIL.Image.Resampling.BILINEAR), dtype=np.uint8)
