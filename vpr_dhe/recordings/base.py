"""Interface of recordings."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import cv2
import numpy as np

from vpr_dhe.records import GeoPosition


@dataclass(frozen=True)
class ImageFile:
    """Bytes of an image file; `extension` begins with a dot."""

    content: bytes
    extension: str


def png_file(pixels: np.ndarray) -> ImageFile:
    """Encode pixels, height x width (grey) or height x width x 3 (RGB), losslessly as PNG."""
    stored = cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR) if pixels.ndim == 3 else pixels
    return ImageFile(cv2.imencode(".png", stored)[1].tobytes(), ".png")


@dataclass(frozen=True)
class RecordedFrame:
    """One frame of a recording, not decoded yet.

    Args:
        number: number among all frames of the recording, from 0.
        time_s: time on the recording's clock in seconds.
        position: position of the camera, if known.
        image: function that encodes the frame losslessly, valid until the next frame is read. Raises ImageError if the
            frame is damaged.
    """

    number: int
    time_s: float
    position: GeoPosition | None
    image: Callable[[], ImageFile]

    @property
    def stem(self) -> str:
        """File name without extension, which sorts in the order of recording."""
        return f"{self.number:08d}"


@runtime_checkable
class FrameSource(Protocol):
    """A recording that is open for reading."""

    @property
    def name(self) -> str:
        """Name for the folder of its frames."""
        ...

    @property
    def identity(self) -> str:
        """Description that distinguishes it from other recordings."""
        ...

    @property
    def keeps_unix_time(self) -> bool:
        """Whether its clock starts at the Unix epoch, rather than at the start of the recording."""
        ...

    @property
    def announced_frames(self) -> int:
        """Number of frames according to its header."""
        ...

    def frames(self) -> Iterator[RecordedFrame]:
        """Read all frames in the order of recording.

        Raises:
            DatasetError: if the recording is damaged.
        """
        ...
