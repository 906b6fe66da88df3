"""Video files, read by OpenCV and FFmpeg."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import cv2

from vpr_dhe.errors import BadInputError, DatasetError, ImageError
from vpr_dhe.recordings.base import ImageFile, RecordedFrame, png_file
from vpr_dhe.recordings.fixes import FixTrack
from vpr_dhe.recordings.gpx import MAX_GAP_S, iso_time, read_track, unix_time_s
from vpr_dhe.records import StrPath

# Seconds from 1904, the epoch of MP4 (ISO/IEC 14496-12, section 8.2.2), to 1970.
_MP4_EPOCH_S = 2_082_844_800


@contextmanager
def open_video(path: StrPath, track: StrPath | None = None, start: str | None = None) -> Iterator["VideoSource"]:
    """Open a video file.

    Args:
        path: path of the video.
        track: GPX file from which positions are interpolated by time.
        start: time of the first frame in ISO 8601. By default, the creation time of an MP4 file if it is within the
            track, else the time of the track's first point.

    Raises:
        DatasetError: if video or track are missing or cannot be read.
        BadInputError: if the start is not a time, or is outside the track.
    """
    path = Path(path)
    if not path.is_file():
        found = "is not a file" if path.exists() else "does not exist"
        raise DatasetError(f"video {path} {found}; expected a file such as drive.mp4")
    # Other backends would open numbered images as a video.
    capture = cv2.VideoCapture(str(path), cv2.CAP_FFMPEG)
    try:
        if not capture.isOpened():
            raise DatasetError(
                f"video {path} cannot be opened; it is damaged, cut off, or in a format that FFmpeg cannot read"
            )
        capture.set(cv2.CAP_PROP_ORIENTATION_AUTO, 1)
        yield VideoSource(path, capture, None if track is None else TimedTrack.of(Path(track), path, start))
    finally:
        capture.release()


@dataclass(frozen=True)
class TimedTrack:
    """Track of a video: `start_s` is the Unix time of its first frame, and `note` states the source of that time."""

    name: str
    fixes: FixTrack
    start_s: float
    note: str

    @classmethod
    def of(cls, path: Path, video: Path, start: str | None) -> "TimedTrack":
        """Read a track, and determine the start of the video; see `open_video`."""
        fixes = read_track(path)
        first_s, last_s = fixes.span_s
        created_s = _creation_time_s(video)
        if start is not None:
            start_s, source = unix_time_s(start), "as given"
            if not first_s - MAX_GAP_S <= start_s <= last_s:
                raise BadInputError(
                    f"the video starts at {iso_time(start_s)}, and {path} goes from {iso_time(first_s)} to "
                    f"{iso_time(last_s)}; give the time of the first frame in UTC, or with an offset such as +02:00"
                )
        elif created_s is not None and first_s <= created_s <= last_s:
            start_s, source = created_s, "by the creation time in its header"
        else:
            start_s, source = first_s, f"taken to be that of the first point of {path.name}"
        return cls(path.name, fixes, start_s, f"{video} starts at {iso_time(start_s)}, {source}")


def _creation_time_s(path: Path) -> float | None:
    """Unix time in the header `mvhd` of an MP4 or QuickTime file; None for other files, or if it is not set."""
    with path.open("rb") as file:
        end = path.stat().st_size
        while file.tell() + 8 <= end:
            begin, head = file.tell(), file.read(8)
            length, kind = int.from_bytes(head[:4], "big"), head[4:]
            if length == 1:
                length = int.from_bytes(file.read(8), "big")
            if kind == b"mvhd":
                version, content = file.read(1), file.read(11)[3:]
                # Version 1 has 64 bits.
                seconds = int.from_bytes(content if version == b"\1" else content[:4], "big") - _MP4_EPOCH_S
                return float(seconds) if seconds > 0 else None
            if kind != b"moov":  # whose content begins here
                if length < 8:
                    return None
                file.seek(begin + length)
    return None


class VideoSource:
    """Frames of a video, upright, with the times of the container and, with a track, Unix times and positions."""

    def __init__(self, path: Path, capture: cv2.VideoCapture, track: TimedTrack | None = None) -> None:
        self._path, self._capture, self._track = path, capture, track
        self.notes = () if track is None else (track.note,)

    @property
    def keeps_unix_time(self) -> bool:
        """Whether times are Unix times, as with a track."""
        return self._track is not None

    @property
    def name(self) -> str:
        """Name of the file without its extension."""
        return self._path.stem

    @property
    def identity(self) -> str:
        """Name and size of the file, and its track."""
        track = self._track
        positions = f", positions by {track.name} from {iso_time(track.start_s)}" if track else ""
        return f"the frames of {self._path.name} ({self._path.stat().st_size} bytes{positions})"

    @property
    def announced_frames(self) -> int:
        """Number of frames according to the header, or estimated from the duration."""
        return max(0, int(self._capture.get(cv2.CAP_PROP_FRAME_COUNT)))

    def frames(self) -> Iterator[RecordedFrame]:
        """Read all frames; only those whose image is used are decoded."""
        number = 0
        while self._capture.grab():
            time_s = self._capture.get(cv2.CAP_PROP_POS_MSEC) / 1e3
            position = None
            if self._track is not None:
                time_s += self._track.start_s
                position = self._track.fixes.at(time_s)
            yield RecordedFrame(number, time_s, position, self._current)
            number += 1

    def _current(self) -> ImageFile:
        decoded, pixels = self._capture.retrieve()
        if not decoded:
            raise ImageError("the frame cannot be decoded")
        return png_file(cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB))
