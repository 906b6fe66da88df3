"""Video files, through OpenCV and FFmpeg."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import cv2

from vpr_dhe.errors import DatasetError, ImageError
from vpr_dhe.recordings.base import ImageFile, RecordedFrame, png_file
from vpr_dhe.records import StrPath


@contextmanager
def open_video(path: StrPath) -> Iterator["VideoSource"]:
    """Open a video file.

    Raises:
        DatasetError: if it is missing, or holds no frames that FFmpeg can decode.
    """
    path = Path(path)
    if not path.is_file():
        found = "is no file" if path.exists() else "does not exist"
        raise DatasetError(f"video {path} {found}; expected a file such as drive.mp4")
    # Another backend would take numbered images for a video.
    capture = cv2.VideoCapture(str(path), cv2.CAP_FFMPEG)
    try:
        if not capture.isOpened():
            raise DatasetError(f"video {path} cannot be opened; it is damaged, cut off, or in no format of FFmpeg's")
        capture.set(cv2.CAP_PROP_ORIENTATION_AUTO, 1)
        yield VideoSource(path, capture)
    finally:
        capture.release()


class VideoSource:
    """The frames of a video, upright; times are those that the container gives each frame."""

    keeps_unix_time = False

    def __init__(self, path: Path, capture: cv2.VideoCapture) -> None:
        self._path, self._capture = path, capture

    @property
    def name(self) -> str:
        """The name of the file without its extension."""
        return self._path.stem

    @property
    def identity(self) -> str:
        """Which file it is, wherever it lies now."""
        return f"the frames of {self._path.name} ({self._path.stat().st_size} bytes)"

    @property
    def announced_frames(self) -> int:
        """The number of frames that the header gives, or that its duration makes likely."""
        return max(0, int(self._capture.get(cv2.CAP_PROP_FRAME_COUNT)))

    def frames(self) -> Iterator[RecordedFrame]:
        """All frames; those that are left out are not decoded."""
        number = 0
        while self._capture.grab():
            time_s = self._capture.get(cv2.CAP_PROP_POS_MSEC) / 1e3
            yield RecordedFrame(number, time_s, None, self._current)
            number += 1

    def _current(self) -> ImageFile:
        decoded, pixels = self._capture.retrieve()
        if not decoded:
            raise ImageError("the frame cannot be decoded")
        return png_file(cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB))
