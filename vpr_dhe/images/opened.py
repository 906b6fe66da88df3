"""Decoding of opened image files: upright, 8-bit RGB, whole or in parts, of bounded size."""

import logging
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from threading import Lock
from typing import NamedTuple, TypeVar

import numpy as np
import PIL.ExifTags
import PIL.Image
from jaxtyping import UInt16

from vpr_dhe.errors import ImageError
from vpr_dhe.images.parts import Part, load_parts, upright, upright_size
from vpr_dhe.images.pillow import open_image
from vpr_dhe.images.truncated_jpeg import START, is_nearly_whole, with_end
from vpr_dhe.images.view_names import file_of
from vpr_dhe.records import GreyLevels, Image, Size
from vpr_dhe.runtime.choices import MAX_PIXELS

_log = logging.getLogger(__name__)

LARGE_PIXELS = 50_000_000
"""Larger images are decoded one at a time, and at a reduced size if an extractor does not need more."""

MIN_SIDE_PX = 16
"""Minimum side of an image in pixels; smaller images do not have enough texture."""

# Files of this size are not read before their headers.
_LARGE_FILE_BYTES = 100_000_000
# Modes of Pillow whose pixels can be averaged.
_AVERAGED_MODES = frozenset({"L", "LA", "RGB", "RGBA", "RGBX", "CMYK", "YCbCr"})
_large_images = Lock()
_TRANSPARENT_MODES = frozenset({"LA", "La", "PA", "RGBA", "RGBa"})
_SIXTEEN_BIT_MODES = frozenset({"I;16", "I;16B", "I;16L", "I;16N"})
_UNBOUNDED_MODES = frozenset({"F", "I"})
# Pillow runs Ghostscript on files of these formats, whatever their names.
_PROGRAM_FORMATS = frozenset({"EPS"})

FULL_RANGE = GreyLevels()
"""Full range of 16 bits; images of sensors with fewer bits use only a part of it."""

CUT_WARNING = "the JPEG lacks its last bytes; it was read as far as it goes"


class Decoded(NamedTuple):
    """Upright image, its size in the file, which may be larger, and whether the file lacks its last bytes."""

    image: Image
    original_size: Size
    is_cut: bool = False


class Opened(NamedTuple):
    """Opened file that is not decoded yet, and its stored size.

    With `refuse_gaps`, at most a few rows at the bottom of the decoded image may be missing.
    """

    file: PIL.Image.Image
    size: Size
    orientation: int
    grey_levels: GreyLevels
    refuse_gaps: bool


Result = TypeVar("Result")


def read_image(
    source: Path | bytes, max_pixels: int | None, grey_levels: GreyLevels, read: Callable[[Opened], Result]
) -> tuple[Result, bool]:
    """Read an image, also from a JPEG that lacks its last bytes, and return whether it does."""
    try:
        return _read_opened(source, max_pixels, grey_levels, read), False
    except ImageError:
        completed = _completed(source)
        if completed is None:
            raise
        try:
            result = _read_opened(completed, max_pixels, FULL_RANGE, read, refuse_gaps=True)
        except ImageError:
            result = None
        if result is None:
            raise
    if isinstance(source, Path):
        _log.warning("%s: %s", source, CUT_WARNING)
    return result, True


def _completed(source: Path | bytes) -> bytes | None:
    """Content of a JPEG without its last bytes, with an end marker appended; None for other files."""
    try:
        return with_end(source if isinstance(source, bytes) else _jpeg_content(regular_file(source)))
    except (ImageError, OSError):
        return None


def _jpeg_content(path: Path) -> bytes:
    """Content of a JPEG; empty for other files, which may be too large to read."""
    with path.open("rb") as file:
        head = file.read(len(START))
        return head + file.read() if head == START else b""


def _read_opened(
    source: Path | bytes,
    max_pixels: int | None,
    grey_levels: GreyLevels,
    read: Callable[[Opened], Result],
    *,
    refuse_gaps: bool = False,
) -> Result:
    try:
        with open_image(source if isinstance(source, bytes) else regular_file(source)) as file:
            if file.format in _PROGRAM_FORMATS:
                raise ImageError(f"{file.format} is a vector format; save the image as JPEG or PNG")
            size = Size(*file.size)
            check_size(size, max_pixels)
            # The orientation of a PNG may be behind its pixels, which are decoded to find it.
            with _large_images if size.width * size.height > LARGE_PIXELS else nullcontext():
                return read(Opened(file, size, orientation_of(file), grey_levels, refuse_gaps))
    except ImageError:
        raise
    except PIL.UnidentifiedImageError as error:
        raise ImageError("not an image in a supported format") from error
    except PIL.Image.DecompressionBombError as error:
        raise ImageError("more pixels than Pillow decodes; scale it down") from error
    except Exception as error:  # decoders raise errors of any kind
        raise ImageError(f"damaged or truncated image ({error})") from error


def decode_whole(opened: Opened, min_size: Size | None) -> Decoded:
    """Decode an image; a large image is downsampled, but to no less than `min_size`."""
    file, orientation = opened.file, opened.orientation
    if min_size is not None:
        file.draft(None, min_size)  # has an effect on JPEG only
    file.load()
    picture = _averaged_down(file, min_size, opened.grey_levels)
    _check_gaps(picture, opened)
    image = np.array(upright(picture, orientation), dtype=np.uint8)
    return Decoded(image, upright_size(opened.size, orientation))


def decode_parts_of(opened: Opened, parts: Sequence[Part], *, grey: bool) -> list[Image]:
    """Decode rectangles of an image; see `load_parts`."""
    convert = partial(to_rgb, grey_levels=opened.grey_levels, deep=_is_deep(opened.file))
    images = load_parts(opened.file, opened.orientation, parts, convert, grey=grey)
    _check_gaps(opened.file, opened)
    return images


def _check_gaps(picture: PIL.Image.Image, opened: Opened) -> None:
    if opened.refuse_gaps and not is_nearly_whole(np.atleast_3d(np.asarray(picture))):
        raise ImageError("truncated image")


def _averaged_down(picture: PIL.Image.Image, min_size: Size | None, grey_levels: GreyLevels) -> PIL.Image.Image:
    """Convert to RGB, and downsample by averaging if there are many more pixels than needed."""
    factor = 1 if min_size is None else excess(Size(*picture.size), min_size)
    if factor == 1:
        return to_rgb(picture, grey_levels)
    size, box = (picture.width // factor, picture.height // factor), PIL.Image.Resampling.BOX
    if picture.mode in _AVERAGED_MODES:
        # Downsample first, because each conversion takes the memory of another image.
        return to_rgb(picture.resize(size, box), grey_levels)
    return to_rgb(picture, grey_levels).resize(size, box)


def excess(size: Size, min_size: Size) -> int:
    """Factor by which a large image can be downsampled to no less than a minimum size; 1 for other images."""
    if size.width * size.height <= LARGE_PIXELS:
        return 1
    return max(1, min(size.width // min_size.width, size.height // min_size.height))


def is_large(path: Path) -> bool:
    """Whether the header of a file claims many pixels; False for files that cannot be read."""
    size = size_in_file(path)
    return size is not None and size.width * size.height > LARGE_PIXELS


def size_in_file(path: Path) -> Size | None:
    """Size of the upright image according to the header of a file; None if that cannot be read."""
    try:
        with open_image(regular_file(path)) as file:
            return upright_size(Size(*file.size), orientation_of(file, decoding=False))
    except Exception:  # decoders raise errors of any kind, which are reported where the image is decoded
        return None


def read_file(path: Path, max_pixels: int | None = None) -> bytes:
    """Read an image file without decoding it.

    A file of many megabytes is not read if its header claims more than `max_pixels` pixels.

    Raises:
        ImageError: if it is missing, not a regular file, unreadable, or too large. The message does not repeat the
            file's name.
    """
    try:
        file = regular_file(path)
        if file.stat().st_size > _LARGE_FILE_BYTES and (size := size_in_file(path)):
            check_size(size, max_pixels)
        return file.read_bytes()
    except OSError as error:
        raise ImageError(f"the file cannot be read ({error.strerror})") from error


def regular_file(path: Path) -> Path:
    """Check that a path, or the panorama of a view, is a regular file, because reading a pipe may block forever."""
    path = file_of(path)
    if not path.is_file():
        raise ImageError("not a regular file" if path.exists() else "the file does not exist")
    return path


def orientation_of(image: PIL.Image.Image, *, decoding: bool = True) -> int:
    """EXIF orientation, 1 to 8; 1 if the EXIF block cannot be read, and for TIFF, which Pillow rotates itself.

    A PNG may have its block behind the pixels. Pillow decodes them to find it, unless `decoding` is False.
    """
    if image.format == "TIFF":
        return 1
    try:
        exif = image.getexif() if decoding else PIL.Image.Image.getexif(image)
        return int(exif.get(PIL.ExifTags.Base.Orientation, 1))
    except Exception:  # damaged blocks raise errors of any kind
        return 1


def check_size(size: Size, max_pixels: int | None) -> None:
    """Check the size of an image; None allows any number of pixels.

    Raises:
        ImageError: if it is too large, or too small to have texture.
    """
    if max_pixels is not None and size.width * size.height > max_pixels:
        raise ImageError(
            f"{size.width} x {size.height} pixels, more than the {max_pixels:,} that are decoded at most; scale it "
            "down, or raise --max-megapixels where there is that option"
        )
    if min(size) < MIN_SIDE_PX:
        raise ImageError(f"{size.width} x {size.height} pixels; at least {MIN_SIDE_PX} on each side are needed")


def deep_values_of(image: PIL.Image.Image) -> UInt16[np.ndarray, "height width"] | None:
    """Grey values of a 16-bit image, upright; None for other images."""
    if not _is_deep(image):
        return None
    check_size(Size(*image.size), MAX_PIXELS)
    return np.asarray(upright(image, orientation_of(image))).astype(np.uint16)


def is_deep_file(path: Path) -> bool:
    """Whether the header of a file is that of an image with one channel of 16 bits; False if it cannot be read."""
    try:
        with open_image(regular_file(path)) as file:
            return _is_deep(file)
    except Exception:  # decoders raise errors of any kind, which are reported where the image is decoded
        return False


def _is_deep(image: PIL.Image.Image) -> bool:
    """Whether an image has one channel of 16 bits; Pillow reads PGM images of 16 bits with 32 bits."""
    return image.mode in _SIXTEEN_BIT_MODES or (image.mode == "I" and getattr(image, "format", None) == "PPM")


def to_rgb(
    image: PIL.Image.Image, grey_levels: GreyLevels = FULL_RANGE, *, deep: bool | None = None
) -> PIL.Image.Image:
    """Convert to 8-bit RGB; `deep` says whether values have 16 bits, if that cannot be inferred from a part."""
    if _is_deep(image) if deep is None else deep:
        # Pillow's own conversion clips at 255 instead of scaling.
        return PIL.Image.fromarray(grey_levels.to_8_bits(np.asarray(image).astype(np.uint16))).convert("RGB")
    if image.mode in _UNBOUNDED_MODES:
        raise ImageError("32-bit pixels of unknown range; save the image with 8 or 16 bits per channel")
    if image.mode in _TRANSPARENT_MODES or "transparency" in image.info:
        opaque = PIL.Image.new("RGBA", image.size, (0, 0, 0, 255))
        return PIL.Image.alpha_composite(opaque, image.convert("RGBA")).convert("RGB")
    return image.convert("RGB")
