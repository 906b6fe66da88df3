"""What a recording is to those who take frames out of it."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import cv2
import numpy as np

from vpr_dhe.records import GeoPosition


@dataclass(frozen=True)
class ImageFile:
    """An image as the bytes of a file; `extension` begins with a dot."""

    content: bytes
    extension: str


def png_file(pixels: np.ndarray) -> ImageFile:
    """Pixels, height x width of grey or height x width x 3 of RGB, as PNG: without loss."""
    stored = cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR) if pixels.ndim == 3 else pixels
    return ImageFile(cv2.imencode(".png", stored)[1].tobytes(), ".png")


@dataclass(frozen=True)
class RecordedFrame:
    """One frame of a recording, not decoded yet.

    Args:
        number: its place among all frames of the recording, from 0.
        time_s: when it was taken, in seconds of the recording's clock.
        position: where it was taken, where that is known.
        image: gives the frame as a file, without loss; only until the next frame is asked for. Raises ImageError where
            the frame is damaged.
    """

    number: int
    time_s: float
    position: GeoPosition | None
    image: Callable[[], ImageFile]

    @property
    def stem(self) -> str:
        """What its file is called, without the extension: a name that sorts like the recording."""
        return f"{self.number:08d}"


@runtime_checkable
class FrameSource(Protocol):
    """A recording that is open for reading."""

    @property
    def name(self) -> str:
        """What folders of its frames are called."""
        ...

    @property
    def identity(self) -> str:
        """What tells the recording from others, in words."""
        ...

    @property
    def keeps_unix_time(self) -> bool:
        """Whether its clock counts from the Unix epoch; else it counts from the start of the recording."""
        ...

    @property
    def announced_frames(self) -> int:
        """How many frames its header says that there are."""
        ...

    def frames(self) -> Iterator[RecordedFrame]:
        """All frames in the order of recording.

        Raises:
            DatasetError: if the recording is damaged.
        """
        ...
