"""Decoding of image files and of views of panoramas, whole, reduced, or in parts."""

from collections.abc import Sequence
from pathlib import Path
from threading import Lock

import xxhash

from vpr_dhe.errors import ImageError
from vpr_dhe.images.opened import (
    FULL_RANGE,
    MIN_SIDE_PX,
    Decoded,
    Opened,
    decode_parts_of,
    decode_whole,
    read_image,
)
from vpr_dhe.images.panoramas import cut_view, is_panorama, size_for_views, view_size
from vpr_dhe.images.parts import Part, upright_size
from vpr_dhe.images.view_names import view_of
from vpr_dhe.records import GreyLevels, Image, Size, StrPath
from vpr_dhe.runtime.choices import MAX_PIXELS

# Along each axis, so that the extractor's own resizing, not the scaled JPEG decoding, determines its input.
_MIN_PIXELS_PER_INPUT_PIXEL = 2


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
    min_size = sufficient_size(input_size)
    view = view_of(source) if isinstance(source, Path) else None
    if view is not None:
        source, yaw_deg = view
    if yaw_deg is not None:
        return _decode_view(source, yaw_deg, max_pixels, min_size, grey_levels)
    return _decode(source, max_pixels, min_size, grey_levels)


def sufficient_size(input_size: Size) -> Size:
    """Minimum size of an image that an extractor resizes to `input_size`, whatever its aspect ratio."""
    side = _MIN_PIXELS_PER_INPUT_PIXEL * max(input_size)
    return Size(side, side)


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


def decode_parts(source: StrPath | bytes, parts: Sequence[Part], *, max_pixels: int | None = MAX_PIXELS) -> list[Image]:
    """Decode rectangles of an upright image, each resized to the size of its part; colours may be lost.

    Memory and errors are as for `decode_bounded`.
    """
    source = _path_or_bytes(source)
    return read_image(source, max_pixels, FULL_RANGE, lambda opened: decode_parts_of(opened, parts, grey=True))[0]


def decode_named(path: StrPath, grey_levels: GreyLevels = FULL_RANGE, *, max_pixels: int | None = MAX_PIXELS) -> Image:
    """Decode a file as `decode_image` does, with its path in error messages."""
    try:
        return decode_image(path, max_pixels=max_pixels, grey_levels=grey_levels)
    except ImageError as error:
        raise ImageError(f"{path}: {error}") from error


def _path_or_bytes(source: StrPath | bytes) -> Path | bytes:
    return source if isinstance(source, bytes) else Path(source)


def _decode(source: Path | bytes, max_pixels: int | None, min_size: Size | None, grey_levels: GreyLevels) -> Decoded:
    decoded, is_cut = read_image(source, max_pixels, grey_levels, lambda opened: decode_whole(opened, min_size))
    return decoded._replace(is_cut=is_cut)
