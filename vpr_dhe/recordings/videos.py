"""Video files, read by OpenCV and FFmpeg."""

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
        DatasetError: if it is missing, or FFmpeg cannot open it.
    """
    path = Path(path)
    if not path.is_file():
        found = "is not a file" if path.exists() else "does not exist"
        raise DatasetError(f"video {path} {found}; expected a file such as drive.mp4")
    # Other backends would take numbered images for a video.
    capture = cv2.VideoCapture(str(path), cv2.CAP_FFMPEG)
    try:
        if not capture.isOpened():
            raise DatasetError(
                f"video {path} cannot be opened; it is damaged, cut off, or in a format that FFmpeg cannot read"
            )
        capture.set(cv2.CAP_PROP_ORIENTATION_AUTO, 1)
        yield VideoSource(path, capture)
    finally:
        capture.release()


class VideoSource:
    """Frames of a video, upright, with the times of the container."""

    keeps_unix_time = False

    def __init__(self, path: Path, capture: cv2.VideoCapture) -> None:
        self._path, self._capture = path, capture

    @property
    def name(self) -> str:
        """Name of the file without its extension."""
        return self._path.stem

    @property
    def identity(self) -> str:
        """Name and size of the file."""
        return f"the frames of {self._path.name} ({self._path.stat().st_size} bytes)"

    @property
    def announced_frames(self) -> int:
        """Number of frames by the header, or estimated from the duration."""
        return max(0, int(self._capture.get(cv2.CAP_PROP_FRAME_COUNT)))

    def frames(self) -> Iterator[RecordedFrame]:
        """Read all frames; only those whose image is used are decoded."""
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
