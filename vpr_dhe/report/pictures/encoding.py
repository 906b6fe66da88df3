"""Encoding of small pictures for HTTP and for embedding in pages."""

import base64
import io

import cv2
import PIL.Image

from vpr_dhe.images.loading import image_size
from vpr_dhe.records import Image

_QUALITY = 78


def scaled(image: Image, zoom: float) -> Image:
    """Resize an image by a factor; at least one pixel wide and high."""
    width, height = (max(1, round(zoom * side)) for side in image_size(image))
    return cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA if zoom < 1 else cv2.INTER_LINEAR)


def jpeg(image: Image, *, side_px: int) -> bytes:
    """Encode an image as JPEG, reduced to at most `side_px` pixels on its longer side."""
    file = io.BytesIO()
    small = scaled(image, min(1.0, side_px / max(image_size(image))))
    PIL.Image.fromarray(small).save(file, "JPEG", quality=_QUALITY, optimize=True)
    return file.getvalue()


def data_uri(content: bytes) -> str:
    """Encode a JPEG file as a data URI."""
    return f"data:image/jpeg;base64,{base64.b64encode(content).decode()}"
