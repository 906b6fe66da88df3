"""Opening of image files with Pillow and, for HEIC, the extra `heic`."""

import io
from functools import cache
from pathlib import Path
from threading import Lock

import PIL.Image

from vpr_dhe.errors import ImageError, MissingExtraError
from vpr_dhe.images.formats import HEIC_HINT, SIGNATURE_BYTES, is_heic
from vpr_dhe.runtime.extras import require_extra


def open_image(source: Path | bytes) -> PIL.Image.Image:
    """Open a file, or its bytes, without decoding its pixels; close it after use.

    Raises:
        ImageError: if it is HEIC, and the extra is not installed.
        Exception: any error of Pillow's decoders.
    """
    # Checked here, because Pillow's AVIF decoder accepts some HEIC files.
    if is_heic(_head(source)):
        register_heic()
    # Pillow warns of sizes common in phones, and refuses larger ones; callers check the size before decoding.
    with _Unlimited():
        return PIL.Image.open(io.BytesIO(source) if isinstance(source, bytes) else source)


class _Unlimited:
    """Context that lifts Pillow's process-wide size limit while any thread opens a file."""

    _lock, _threads, _before = Lock(), 0, PIL.Image.MAX_IMAGE_PIXELS

    def __enter__(self) -> None:
        with self._lock:
            if not _Unlimited._threads:
                _Unlimited._before, PIL.Image.MAX_IMAGE_PIXELS = PIL.Image.MAX_IMAGE_PIXELS, None
            _Unlimited._threads += 1

    def __exit__(self, *_: object) -> None:
        with self._lock:
            _Unlimited._threads -= 1
            if not _Unlimited._threads:
                PIL.Image.MAX_IMAGE_PIXELS = _Unlimited._before


def _head(source: Path | bytes) -> bytes:
    if isinstance(source, bytes):
        return source[:SIGNATURE_BYTES]
    with source.open("rb") as file:
        return file.read(SIGNATURE_BYTES)


@cache
def register_heic() -> None:
    """Register HEIC with Pillow.

    Raises:
        ImageError: if the extra is not installed.
    """
    try:
        library = require_extra("heic")
    except MissingExtraError as error:
        raise ImageError(f"a HEIC photo; {HEIC_HINT}") from error
    library.register_heif_opener()
