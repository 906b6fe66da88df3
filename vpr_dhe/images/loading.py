"""Images as users give them: files, arrays, tensors or Pillow images, as 8-bit RGB."""

import os
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import NamedTuple, TypeAlias

import cv2
import numpy as np
import PIL.Image
import torch
from jaxtyping import UInt16
from torch import Tensor

from vpr_dhe.errors import ImageError
from vpr_dhe.images.decoding import bounded_size, decode_image, decode_reduced
from vpr_dhe.images.opened import (
    FULL_RANGE,
    check_size,
    deep_values_of,
    is_large,
    orientation_of,
    regular_file,
    to_rgb,
)
from vpr_dhe.images.parts import upright
from vpr_dhe.images.pillow import open_image
from vpr_dhe.records import GreyLevels, Image, Size, StrPath
from vpr_dhe.runtime.choices import MAX_PIXELS

ImageLike: TypeAlias = np.ndarray | Tensor | PIL.Image.Image
"""Image in memory; see `require_image` for shapes and types."""

_CHANNELS = frozenset({1, 3, 4})


def load_image(
    source: "ImageLike | StrPath", grey_levels: GreyLevels = FULL_RANGE, *, max_pixels: int | None = MAX_PIXELS
) -> Image:
    """Decode a file, or convert an image in memory; `grey_levels` maps 16-bit images to 8 bits.

    `max_pixels` is the maximum number of pixels of a file.

    Raises:
        ImageError: as for `decode_image` and `require_image`.
    """
    if isinstance(source, (str, os.PathLike)):
        return decode_image(Path(source), max_pixels=max_pixels, grey_levels=grey_levels)
    return require_image(source, grey_levels)


class LoadedImage(NamedTuple):
    """Image to extract features from, and its original, which may be larger.

    `whole` is the original, or a function that decodes it.
    """

    image: Image
    original_size: Size
    whole: "Image | Callable[[], Image]"


def load_for_input(
    source: "ImageLike | StrPath",
    input_size: Size,
    grey_levels: GreyLevels = FULL_RANGE,
    *,
    max_pixels: int | None = MAX_PIXELS,
) -> LoadedImage:
    """Load an image as `load_image` does; files of more than `LARGE_PIXELS` are downsampled as by `decode_reduced`."""
    if not isinstance(source, (str, os.PathLike)):
        image = require_image(source, grey_levels)
        return LoadedImage(image, image_size(image), image)
    path = Path(source)
    decode = partial(decode_image, path, max_pixels=max_pixels, grey_levels=grey_levels)
    if not is_large(path):
        image = decode()
        return LoadedImage(image, image_size(image), image)
    reduced = decode_reduced(path, input_size, max_pixels=max_pixels, grey_levels=grey_levels)
    return LoadedImage(reduced.image, reduced.original_size, decode)


def require_image(given: ImageLike, grey_levels: GreyLevels = FULL_RANGE) -> Image:
    """Convert an image in memory to RGB, by the same rules as a file.

    - Arrays are height x width x channels, or height x width for greyscale, uint8 or uint16 (which `grey_levels`
      scale).
    - Tensors have their channels first or last, whichever axis has length 1, 3 or 4, or are height x width; uint8, or
      floats in [0, 1].
    - Pillow images are converted like files, including EXIF orientation.

    One channel is greyscale, three are RGB, and a fourth is alpha, which is blended with black.

    Raises:
        ImageError: if it is none of these, is smaller than 16 pixels on a side, or has more than `MAX_PIXELS` pixels.
    """
    if isinstance(given, PIL.Image.Image):
        check_size(Size(*given.size), MAX_PIXELS)
        return np.array(upright(to_rgb(given, grey_levels), orientation_of(given)), dtype=np.uint8)
    return _from_array(_channels_last(given) if isinstance(given, Tensor) else given, grey_levels)


def image_size(image: Image) -> Size:
    """Width and height of a decoded image."""
    height, width = image.shape[:2]
    return Size(width, height)


def reduced_to(image: Image, pixels: int) -> Image:
    """Downsample an image of more than `pixels` pixels to about that number by area averaging."""
    size = image_size(image)
    bounded = bounded_size(size, pixels)
    return image if bounded == size else cv2.resize(image, bounded, interpolation=cv2.INTER_AREA).astype(np.uint8)


def decode_pixels(content: bytes) -> np.ndarray:
    """Decode a file into an 8-bit RGB image, or into 16-bit grey values, which `load_image` scales.

    Raises:
        ImageError: as for `decode_image`.
    """
    deep = deep_values(content)
    return decode_image(content) if deep is None else deep


def deep_values(source: "ImageLike | StrPath | bytes") -> UInt16[np.ndarray, "height width"] | None:
    """Grey values of a 16-bit image, upright; None for other images, and for those that cannot be read."""
    if isinstance(source, np.ndarray):
        return source.reshape(source.shape[:2]) if source.dtype == np.uint16 and source.size == _area(source) else None
    if isinstance(source, Tensor):
        return None
    try:
        if isinstance(source, PIL.Image.Image):
            return deep_values_of(source)
        with open_image(source if isinstance(source, bytes) else regular_file(Path(source))) as file:
            return deep_values_of(file)
    except Exception:  # decoders raise errors of any kind, which are reported where the image is used
        return None


def _area(array: np.ndarray) -> int:
    return int(np.prod(array.shape[:2]))


def _from_array(array: np.ndarray, grey_levels: GreyLevels) -> Image:
    channels = 1 if array.ndim == 2 else array.shape[2] if array.ndim == 3 else 0
    if array.dtype not in (np.uint8, np.uint16) or channels not in _CHANNELS:
        raise ImageError(
            f"an array of {array.dtype} and shape {array.shape}; expected uint8 or uint16, height x width x 3 (RGB), "
            "x 4 (with alpha), x 1 or height x width (grey)"
        )
    height, width = array.shape[:2]
    check_size(Size(width, height), MAX_PIXELS)
    # Contiguous, because some libraries reject negative strides, as of `bgr[..., ::-1]`.
    # Grey levels are those of sensors without colours, as in files and bags.
    levels = grey_levels if channels == 1 else FULL_RANGE
    eight_bits = np.ascontiguousarray(array if array.dtype == np.uint8 else levels.to_8_bits(array))
    if channels == 3:
        return eight_bits
    picture = PIL.Image.fromarray(eight_bits.reshape(height, width) if channels == 1 else eight_bits)
    return np.array(to_rgb(picture), dtype=np.uint8)


def _channels_last(tensor: Tensor) -> np.ndarray:
    """Convert a tensor to an array of uint8, channels last."""
    values = _eight_bits(tensor.detach().cpu())
    if values.ndim == 3 and values.shape[0] in _CHANNELS and values.shape[2] not in _CHANNELS:
        values = values.permute(1, 2, 0)
    return values.numpy()


def _eight_bits(tensor: Tensor) -> Tensor:
    if tensor.dtype == torch.uint8:
        return tensor
    found = f"a tensor of {tensor.dtype} and shape {tuple(tensor.shape)}"
    if not tensor.is_floating_point():
        raise ImageError(f"{found}; expected uint8, or floats in [0, 1]")
    values = tensor.float()
    # Written so that NaN fails too.
    if not bool(((values >= 0) & (values <= 1)).all()):
        raise ImageError(f"{found} with values outside [0, 1]; scale it, or give uint8")
    return (255 * values).round().to(torch.uint8)
