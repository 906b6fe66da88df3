"""Images in ROS messages, deserialised by any library.

Source: the messages Image and CompressedImage of `sensor_msgs`, and its `image_encodings.hpp`.
"""

import re
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import cv2
import numpy as np

from vpr_dhe.errors import DatasetError, ImageError
from vpr_dhe.images.opened import FULL_RANGE
from vpr_dhe.recordings.base import ImageFile, png_file

RAW_TYPE, COMPRESSED_TYPE, FIX_TYPE = (
    "sensor_msgs/msg/Image",
    "sensor_msgs/msg/CompressedImage",
    "sensor_msgs/msg/NavSatFix",
)
IMAGE_TYPES = (RAW_TYPE, COMPRESSED_TYPE)

# Magic bytes of file formats, with dots for arbitrary bytes, and their extensions.
_SIGNATURES = (
    (rb"\xff\xd8\xff", ".jpg"),
    (rb"\x89PNG\r\n\x1a\n", ".png"),
    (rb"RIFF....WEBP", ".webp"),
    (rb"II\*\x00|MM\x00\*", ".tiff"),
)


@runtime_checkable
class RawMessage(Protocol):
    """Message of the type Image: `height` x `width` pixels in rows of `step` bytes."""

    @property
    def height(self) -> int: ...  # noqa: D102
    @property
    def width(self) -> int: ...  # noqa: D102
    @property
    def encoding(self) -> str: ...  # noqa: D102
    @property
    def is_bigendian(self) -> int: ...  # noqa: D102
    @property
    def step(self) -> int: ...  # noqa: D102
    @property
    def data(self) -> Any: ...  # noqa: D102


@runtime_checkable
class CompressedMessage(Protocol):
    """Message of the type CompressedImage; `data` are the bytes of a file."""

    @property
    def format(self) -> str: ...  # noqa: D102
    @property
    def data(self) -> Any: ...  # noqa: D102


@dataclass(frozen=True)
class _Encoding:
    """Memory layout of pixels, and OpenCV's code for the conversion to RGB, if needed.

    With `half_colour`, rows of luminance are followed by half as many rows of chrominance.
    """

    channels: int
    to_rgb: int | None = None
    bytes_per_value: int = 1
    half_colour: bool = False


_ENCODINGS = {
    "rgb8": _Encoding(3),
    "bgr8": _Encoding(3, cv2.COLOR_BGR2RGB),
    # The alpha channel is ignored, because some cameras leave it at 0.
    "rgba8": _Encoding(4, cv2.COLOR_RGBA2RGB),
    "bgra8": _Encoding(4, cv2.COLOR_BGRA2RGB),
    # Generic channels; publishers usually use OpenCV's order, BGR.
    "8UC3": _Encoding(3, cv2.COLOR_BGR2RGB),
    "8UC4": _Encoding(4, cv2.COLOR_BGRA2RGB),
    "rgb16": _Encoding(3, bytes_per_value=2),
    "bgr16": _Encoding(3, cv2.COLOR_BGR2RGB, bytes_per_value=2),
    "mono8": _Encoding(1),
    "8UC1": _Encoding(1),
    "mono16": _Encoding(1, bytes_per_value=2),
    "16UC1": _Encoding(1, bytes_per_value=2),
    "bayer_rggb8": _Encoding(1, cv2.COLOR_BayerRGGB2RGB),
    "bayer_bggr8": _Encoding(1, cv2.COLOR_BayerBGGR2RGB),
    "bayer_gbrg8": _Encoding(1, cv2.COLOR_BayerGBRG2RGB),
    "bayer_grbg8": _Encoding(1, cv2.COLOR_BayerGRBG2RGB),
    "yuv422": _Encoding(2, cv2.COLOR_YUV2RGB_UYVY),
    "uyvy": _Encoding(2, cv2.COLOR_YUV2RGB_UYVY),
    "yuv422_yuy2": _Encoding(2, cv2.COLOR_YUV2RGB_YUY2),
    "yuyv": _Encoding(2, cv2.COLOR_YUV2RGB_YUY2),
    "nv12": _Encoding(1, cv2.COLOR_YUV2RGB_NV12, half_colour=True),
    "nv21": _Encoding(1, cv2.COLOR_YUV2RGB_NV21, half_colour=True),
}


def pixels_of(message: RawMessage) -> np.ndarray:
    """Decode a raw image to height x width x 3 (RGB, 8 bits) or height x width (grey, 8 or 16 bits).

    Colours of 16 bits are divided by 257.

    Raises:
        DatasetError: if the encoding is not supported, such as that of a depth image.
        ImageError: if the message has too few bytes for its size.
    """
    encoding = _ENCODINGS.get(message.encoding)
    if encoding is None:
        raise DatasetError(f"images are encoded as {message.encoding!r}; expected one of {', '.join(_ENCODINGS)}")
    row_bytes = message.width * encoding.channels * encoding.bytes_per_value
    data = np.frombuffer(memoryview(message.data), np.uint8)
    odd = encoding.half_colour and (message.width % 2 or message.height % 2)
    height = message.height * 3 // 2 if encoding.half_colour else message.height
    if message.step < row_bytes or data.size < height * message.step or not row_bytes * height or odd:
        raise ImageError(
            f"{data.size} bytes of {message.width} x {message.height} pixels, {message.encoding}, in rows of "
            f"{message.step} bytes; the message is damaged"
        )
    rows = data[: height * message.step].reshape(height, message.step)[:, :row_bytes]
    values = np.ascontiguousarray(rows)
    if encoding.bytes_per_value == 2:
        values = values.view(">u2" if message.is_bigendian else "<u2").astype(np.uint16)
    if encoding.channels > 1:
        values = values.reshape(height, message.width, encoding.channels)
        values = values if values.dtype == np.uint8 else FULL_RANGE.to_8_bits(values)
    return values if encoding.to_rgb is None else cv2.cvtColor(values, encoding.to_rgb)


def raw_file(message: RawMessage) -> ImageFile:
    """Encode a raw image losslessly as PNG; errors as for `pixels_of`."""
    return png_file(pixels_of(message))


def compressed_file(message: CompressedMessage) -> ImageFile:
    """Extract the JPEG, PNG, WebP or TIFF file of a message.

    Raises:
        ImageError: if it is none of these.
    """
    content = bytes(message.data)
    for signature, extension in _SIGNATURES:
        if re.match(signature, content, re.DOTALL):
            return ImageFile(content, extension)
    raise ImageError(
        f"{len(content)} bytes in the format {message.format!r} are none of JPEG, PNG, WebP and TIFF; publish one of "
        "these"
    )
