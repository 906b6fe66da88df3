"""Reading and writing of serialised image messages without copying single pixels.

Sources: OMG "DDS Interoperability Wire Protocol" 2.5, section 10 (encapsulation), and "Extensible and Dynamic Topic
Types for DDS" 1.3, section 7.4 (CDR); definitions of sensor_msgs/Image, sensor_msgs/CompressedImage and
std_msgs/Header. Members of images have at most 4 bytes, so both versions of CDR agree.
"""

import struct
from dataclasses import dataclass

from vpr_dhe.errors import ImageError

_HEADER_BYTES = 4
# Headers of CDR and CDR2 for final types, as those of ROS, in big and little endian.
_ENCAPSULATIONS = {0: ">", 1: "<", 6: ">", 7: "<"}


@dataclass(frozen=True)
class Stamp:
    """Time of a message, since the Unix epoch unless the robot uses another clock."""

    sec: int
    nanosec: int

    @property
    def seconds(self) -> float:
        """Time in seconds."""
        return self.sec + 1e-9 * self.nanosec

    def __str__(self) -> str:
        return f"{self.sec}.{self.nanosec:09d}"


@dataclass(frozen=True)
class RawImage:
    """Message sensor_msgs/Image; `data` is a view of the serialised message."""

    stamp: Stamp
    frame_id: str
    height: int
    width: int
    encoding: str
    is_bigendian: int
    step: int
    data: memoryview


@dataclass(frozen=True)
class CompressedImage:
    """Message sensor_msgs/CompressedImage; `data` is a view of the serialised message."""

    stamp: Stamp
    frame_id: str
    format: str
    data: memoryview


CameraImage = RawImage | CompressedImage


class _Cursor:
    """Position in a serialised message; values are aligned to their size relative to the end of the header."""

    def __init__(self, message: bytes) -> None:
        if len(message) < _HEADER_BYTES or message[1] not in _ENCAPSULATIONS:
            raise ImageError(f"a message begins with {message[:_HEADER_BYTES].hex()}; expected the header of CDR")
        self._order = _ENCAPSULATIONS[message[1]]
        self._bytes = memoryview(message)[_HEADER_BYTES:]
        self._at = 0

    def number(self, code: str) -> int:
        """Next number, by its code of `struct`."""
        size = struct.calcsize(code)
        self._at += -self._at % size
        [value] = struct.unpack(self._order + code, self.take(size))
        return value

    def take(self, count: int) -> memoryview:
        """Next bytes."""
        taken = self._bytes[self._at : self._at + count]
        if len(taken) < count:
            raise ImageError(f"a message of {len(self._bytes)} bytes ends early; it is damaged")
        self._at += count
        return taken

    def text(self) -> str:
        """Next string, which ends with a zero byte."""
        return bytes(self.take(self.number("I"))).rstrip(b"\0").decode("utf-8", "replace")

    def stamped(self) -> tuple[Stamp, str]:
        """Next std_msgs/Header."""
        return Stamp(self.number("i"), self.number("I")), self.text()

    def octets(self) -> memoryview:
        """Next sequence of bytes, as a view."""
        return self.take(self.number("I"))


def read_image(message: bytes) -> RawImage:
    """Read a serialised sensor_msgs/Image.

    Raises:
        ImageError: if it is damaged.
    """
    cursor = _Cursor(message)
    stamp, frame_id = cursor.stamped()
    height, width, encoding = cursor.number("I"), cursor.number("I"), cursor.text()
    is_bigendian, step = cursor.number("B"), cursor.number("I")
    return RawImage(stamp, frame_id, height, width, encoding, is_bigendian, step, cursor.octets())


def read_compressed(message: bytes) -> CompressedImage:
    """Read a serialised sensor_msgs/CompressedImage.

    Raises:
        ImageError: if it is damaged.
    """
    cursor = _Cursor(message)
    stamp, frame_id = cursor.stamped()
    return CompressedImage(stamp, frame_id, cursor.text(), cursor.octets())


class _Buffer:
    """Message that is being serialised, in little endian."""

    def __init__(self) -> None:
        self._bytes = bytearray()

    def number(self, code: str, value: int) -> None:
        self._bytes += bytes(-len(self._bytes) % struct.calcsize(code)) + struct.pack(f"<{code}", value)

    def octets(self, content: bytes | memoryview) -> None:
        self.number("I", len(content))
        self._bytes += content

    def stamped(self, stamp: Stamp, frame_id: str) -> None:
        self.number("i", stamp.sec)
        self.number("I", stamp.nanosec)
        self.octets(frame_id.encode() + b"\0")

    def finish(self) -> bytes:
        """Return the message with its header, padded to a multiple of 4 bytes; the header states the padding."""
        padding = -len(self._bytes) % 4
        return bytes((0, 1, 0, padding)) + bytes(self._bytes) + bytes(padding)


def write_image(image: RawImage) -> bytes:
    """Serialise a sensor_msgs/Image."""
    buffer = _Buffer()
    buffer.stamped(image.stamp, image.frame_id)
    buffer.number("I", image.height)
    buffer.number("I", image.width)
    buffer.octets(image.encoding.encode() + b"\0")
    buffer.number("B", image.is_bigendian)
    buffer.number("I", image.step)
    buffer.octets(image.data)
    return buffer.finish()


def write_compressed(image: CompressedImage) -> bytes:
    """Serialise a sensor_msgs/CompressedImage."""
    buffer = _Buffer()
    buffer.stamped(image.stamp, image.frame_id)
    buffer.octets(image.format.encode() + b"\0")
    buffer.octets(image.data)
    return buffer.finish()
