"""Pixels of the current frame of a run, for its recording."""

from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np

from vpr_dhe.errors import ImageError
from vpr_dhe.images.loading import ImageLike, load_image
from vpr_dhe.records import GreyLevels, Image
from vpr_dhe.sequences.frames import SequenceFrame


class LastFrame:
    """Last frame of a stream. Frames of a recording are decoded once; files are decoded again for display."""

    def __init__(self) -> None:
        self._image: ImageLike | Path | None = None

    def tap_frames(self, frames: Iterable[SequenceFrame]) -> Iterator[SequenceFrame]:
        """Yield frames, keeping the last one."""
        for frame in frames:
            self._image = None if callable(frame.image) else frame.image
            yield replace(frame, image=self._keeping(frame)) if callable(frame.image) else frame

    def pixels(self, levels: GreyLevels) -> Image | None:
        """Pixels of the last frame; None if it cannot be read."""
        if self._image is None:
            return None
        try:
            return load_image(self._image, levels)
        except ImageError:
            return None

    def _keeping(self, frame: SequenceFrame):
        def read() -> np.ndarray:
            image = frame.read()
            self._image = image
            assert isinstance(image, np.ndarray), "functions of frames return pixels"
            return image

        return read
