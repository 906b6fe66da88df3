"""Decoding of image files, and preprocessing for networks."""

import logging
import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import lru_cache, partial
from pathlib import Path
from threading import Lock
from typing import NamedTuple, TypeAlias

import cv2
import numpy as np
import PIL.ExifTags
import PIL.Image
import torch
import xxhash
from jaxtyping import Float, UInt16
from torch import Tensor
from torch.nn import functional

from vpr_dhe.errors import BadInputError, ImageError
from vpr_dhe.records import GreyLevels, Image, Preprocessing, Size, StrPath
from vpr_dhe.runtime.image_decoding import (
    FULL_RANGE,
    MAX_PIXELS,
    MIN_SIDE_PX,
    Decoded,
    Opened,
    check_size,
    decode_parts_of,
    decode_whole,
    deep_values_of,
    excess,
    is_large,
    orientation_of,
    read_image,
    regular_file,
    to_rgb,
)
from vpr_dhe.runtime.image_files import ImageListing, scan_images
from vpr_dhe.runtime.image_parts import Part, upright, upright_size
from vpr_dhe.runtime.panoramas import cut_view, is_panorama, size_for_views, view_size
from vpr_dhe.runtime.pillow import open_image
from vpr_dhe.runtime.threads import in_parallel
from vpr_dhe.runtime.view_names import view_of

_log = logging.getLogger(__name__)

ImageLike: TypeAlias = np.ndarray | Tensor | PIL.Image.Image
"""Image in memory; see `require_image` for shapes and types."""

_CHANNELS = frozenset({1, 3, 4})
# Along each axis, so that the extractor's own resizing, not the scaled JPEG decoding, determines its input.
_MIN_PIXELS_PER_INPUT_PIXEL = 2
_PILLOW_RESAMPLING = {
    "bilinear": PIL.Image.Resampling.BILINEAR,
    "bicubic": PIL.Image.Resampling.BICUBIC,
    "area": PIL.Image.Resampling.BOX,
}


def decode_image(
    source: StrPath | bytes, *, max_pixels: int | None = MAX_PIXELS, grey_levels: GreyLevels = FULL_RANGE
) -> Image:
    """Decode a file, or its bytes, into an upright 8-bit RGB image; the path may be that of a view of a panorama.

    EXIF orientation is applied. Greyscale, palette, CMYK and 16-bit images are converted to RGB; `grey_levels` maps 16
    to 8 bits. Transparent pixels are blended with black. A JPEG that lacks only its last bytes is decoded; for a file,
    a warning is logged.

    Raises:
        ImageError: if it is missing, not an image, truncated, of more than `max_pixels` pixels, or smaller than 16
            pixels on a side. The message does not repeat the file's name.
    """
    source = _path_or_bytes(source)
    view = view_of(source) if isinstance(source, Path) else None
    if view is not None:
        return _decode_view(view.file, view.yaw_deg, max_pixels, None, grey_levels).image
    return _decode(source, max_pixels, None, grey_levels).image


def decode_reduced(
    source: StrPath | bytes,
    input_size: Size,
    *,
    max_pixels: int | None = MAX_PIXELS,
    grey_levels: GreyLevels = FULL_RANGE,
    yaw_deg: int | None = None,
) -> Decoded:
    """Decode for an extractor that resizes to `input_size`; errors as for `decode_image`.

    A JPEG may be decoded at a half, a quarter or an eighth of its size, which takes a fraction of the time; other
    images of more than `LARGE_PIXELS` are downsampled by averaging. The result is at least twice the input size along
    each axis. With `yaw_deg`, the image is the view of a panorama in this direction.
    """
    source = _path_or_bytes(source)
    min_side = _MIN_PIXELS_PER_INPUT_PIXEL * max(input_size)
    view = view_of(source) if isinstance(source, Path) else None
    if view is not None:
        source, yaw_deg = view
    if yaw_deg is not None:
        return _decode_view(source, yaw_deg, max_pixels, Size(min_side, min_side), grey_levels)
    return _decode(source, max_pixels, Size(min_side, min_side), grey_levels)


def _decode_view(
    source: Path | bytes, yaw_deg: int, max_pixels: int | None, min_size: Size | None, grey_levels: GreyLevels
) -> Decoded:
    enough = None if min_size is None else size_for_views(min_size)
    panorama = _last_panorama.decoded(source, max_pixels, enough, grey_levels)
    size = panorama.original_size
    if not is_panorama(size):
        raise ImageError(f"{size.width} x {size.height} pixels; expected a panorama with an aspect ratio of 2:1")
    return Decoded(cut_view(panorama.image, yaw_deg), view_size(size), panorama.is_cut)


class _LastPanorama:
    """Cache of the last decoded panorama, because its views are decoded one after the other."""

    def __init__(self) -> None:
        self._lock, self._key = Lock(), None
        self._decoded: Decoded | None = None

    def decoded(
        self, source: Path | bytes, max_pixels: int | None, min_size: Size | None, grey_levels: GreyLevels
    ) -> Decoded:
        """Decode a panorama, or return that of the last call; only panoramas given as bytes are kept."""
        if not isinstance(source, bytes):
            return _decode(source, max_pixels, min_size, grey_levels)
        key = (xxhash.xxh3_128_digest(source), max_pixels, min_size, grey_levels)
        with self._lock:
            if self._decoded is None or self._key != key:
                self._decoded = None  # frees its memory first
                self._decoded, self._key = _decode(source, max_pixels, min_size, grey_levels), key
            return self._decoded


_last_panorama = _LastPanorama()


def decode_bounded(source: StrPath | bytes, pixels: int, *, max_pixels: int | None = MAX_PIXELS) -> Decoded:
    """Decode as `decode_image` does, but downsample images of more than `pixels` pixels to about that number.

    Peak memory is the result and the pixels of the file, at most 4 bytes each; a JPEG may take less.
    """

    def read(opened: Opened) -> Decoded:
        size = upright_size(opened.size, opened.orientation)
        reduced = bounded_size(size, pixels)
        if reduced == size:
            return decode_whole(opened, None)
        (image,) = decode_parts_of(opened, [Part(0, 0, *size, size=reduced)], grey=False)
        return Decoded(image, size)

    decoded, is_cut = read_image(_path_or_bytes(source), max_pixels, FULL_RANGE, read)
    return decoded._replace(is_cut=is_cut)


def bounded_size(size: Size, pixels: int) -> Size:
    """Size of an image after downsampling to about `pixels` pixels; unchanged if it has no more."""
    shrinking = (pixels / (size.width * size.height)) ** 0.5
    return size if shrinking >= 1 else Size(*(max(MIN_SIDE_PX, round(shrinking * side)) for side in size))


def reduced_to(image: Image, pixels: int) -> Image:
    """Downsample an image of more than `pixels` pixels to about that number by area averaging."""
    size = image_size(image)
    bounded = bounded_size(size, pixels)
    return image if bounded == size else cv2.resize(image, bounded, interpolation=cv2.INTER_AREA).astype(np.uint8)


def decode_parts(source: StrPath | bytes, parts: Sequence[Part], *, max_pixels: int | None = MAX_PIXELS) -> list[Image]:
    """Decode rectangles of an upright image, each resized to the size of its part; colours may be lost.

    Memory and errors are as for `decode_bounded`.
    """
    source = _path_or_bytes(source)
    return read_image(source, max_pixels, FULL_RANGE, lambda opened: decode_parts_of(opened, parts, grey=True))[0]


def _path_or_bytes(source: StrPath | bytes) -> Path | bytes:
    return source if isinstance(source, bytes) else Path(source)


def _decode(source: Path | bytes, max_pixels: int | None, min_size: Size | None, grey_levels: GreyLevels) -> Decoded:
    decoded, is_cut = read_image(source, max_pixels, grey_levels, lambda opened: decode_whole(opened, min_size))
    return decoded._replace(is_cut=is_cut)


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


def decode_named(path: StrPath, grey_levels: GreyLevels = FULL_RANGE, *, max_pixels: int | None = MAX_PIXELS) -> Image:
    """Decode a file as `decode_image` does, with its path in error messages."""
    try:
        return decode_image(path, max_pixels=max_pixels, grey_levels=grey_levels)
    except ImageError as error:
        raise ImageError(f"{path}: {error}") from error


def load_image(source: "ImageLike | StrPath", grey_levels: GreyLevels = FULL_RANGE) -> Image:
    """Decode a file, or convert an image in memory; `grey_levels` maps 16-bit images to 8 bits.

    Raises:
        ImageError: as for `decode_image` and `require_image`.
    """
    if isinstance(source, (str, os.PathLike)):
        return decode_image(Path(source), grey_levels=grey_levels)
    return require_image(source, grey_levels)


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
    eight_bits = np.ascontiguousarray(array if array.dtype == np.uint8 else grey_levels.to_8_bits(array))
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


def image_size(image: Image) -> Size:
    """Width and height of a decoded image."""
    height, width = image.shape[:2]
    return Size(width, height)


def list_images(folder: StrPath) -> list[str]:
    """List all images in a folder and below, relative to it and sorted.

    An image is a file with an extension of `EXTENSIONS`, or without an extension but with the first bytes of an image.
    Hidden files and folders are skipped; links to folders are followed, but each folder is listed once. Images that
    cannot be read, such as HEIC without the extra `heic`, are counted in a logged warning.

    Raises:
        BadInputError: if the folder is missing, is a file, or contains no images.
        ListingError: if a part of the folder cannot be listed.
    """
    listing = survey_images(folder).require_complete()
    if listing.left_out:
        _log.warning("%s: %s", folder, listing.left_out_text)
    return list(listing.paths)


def survey_images(folder: StrPath) -> ImageListing:
    """List images as `list_images` does, with the skipped files and the folders that cannot be listed.

    Raises:
        BadInputError: if the folder is missing, is a file, or contains no images.
        ListingError: if no image is found because a part of the folder cannot be listed.
    """
    folder = Path(folder)
    if not folder.is_dir():
        found = "is a file" if folder.exists() else "does not exist"
        raise BadInputError(f"folder {folder} {found}; expected a folder of images")
    listing = scan_images(folder)
    if not listing.paths:
        listing.require_complete()
        hint = (
            f": {listing.left_out_text}" if listing.left_out else "; expected files such as .jpg, .png, .webp or .tif"
        )
        raise BadInputError(f"folder {folder} holds no images that can be read{hint}")
    return listing


def to_network_input(
    images: Sequence[Image], preprocessing: Preprocessing, device: torch.device
) -> Float[Tensor, "batch 3 height width"]:
    """Preprocess images into one batch: resize all to `preprocessing.size`, scale to [0, 1] and normalise.

    If the preprocessing keeps image sizes, group the images by `by_input_size` first.
    """
    resized = partial(_resized, preprocessing=preprocessing, device=device)
    # Threads help on a CPU only.
    inputs = in_parallel(resized, images) if device.type == "cpu" else [resized(image) for image in images]
    batch = inputs[0] if len(inputs) == 1 else torch.cat(inputs)
    mean, std = (_of_channels(values, device) for values in (preprocessing.mean, preprocessing.std))
    # In place, because allocation takes longer than the arithmetic.
    return batch.sub_(mean).div_(std)


def by_input_size(images: Sequence[Image], preprocessing: Preprocessing) -> dict[Preprocessing, list[int]]:
    """Group the indices of images into batches; the keys are the preprocessing of each batch for `to_network_input`."""
    groups: dict[Preprocessing, list[int]] = {}
    for number, image in enumerate(images):
        size = preprocessing.input_size_of(image_size(image))
        groups.setdefault(replace(preprocessing, width=size.width, height=size.height), []).append(number)
    return groups


@lru_cache(maxsize=16)
def _of_channels(values: tuple[float, float, float], device: torch.device) -> Float[Tensor, "1 3 1 1"]:
    """Tensor on the device, cached because copying it would wait for the GPU."""
    return torch.tensor(values, device=device).view(1, 3, 1, 1)


def _reduced(image: Image, preprocessing: Preprocessing) -> Image:
    """Downsample a large image to at least twice the input size, because its pixels take 12 bytes each from here on."""
    size, enough = image_size(image), _MIN_PIXELS_PER_INPUT_PIXEL * max(preprocessing.size)
    factor = excess(size, Size(enough, enough))
    if factor == 1:
        return image
    return cv2.resize(image, (size.width // factor, size.height // factor), interpolation=cv2.INTER_AREA)


def _resized_8_bit(image: Image, preprocessing: Preprocessing) -> Image:
    resampling = _PILLOW_RESAMPLING[preprocessing.interpolation]
    return np.asarray(PIL.Image.fromarray(image).resize(preprocessing.size, resampling))


def _resized(
    image: Image, preprocessing: Preprocessing, device: torch.device
) -> Float[Tensor, "1 3 input_height input_width"]:
    image = _resized_8_bit(image, preprocessing) if preprocessing.resizes_8_bit else _reduced(image, preprocessing)
    # Pinned memory is copied to a GPU asynchronously.
    pixels = torch.tensor(image, pin_memory=device.type == "cuda").to(device, non_blocking=True)
    tensor = pixels.permute(2, 0, 1)[None].float().div_(255)
    if preprocessing.resizes_8_bit:
        return tensor
    return functional.interpolate(
        tensor,
        (preprocessing.height, preprocessing.width),
        mode=preprocessing.interpolation,
        align_corners=False,
        antialias=preprocessing.antialias,
    )
