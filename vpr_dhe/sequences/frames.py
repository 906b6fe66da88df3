"""Frames of a stream, and a thread that reads them from a live source."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from enum import StrEnum
from math import isfinite
from pathlib import Path
from threading import Condition, Thread

import numpy as np

from vpr_dhe.errors import BadInputError
from vpr_dhe.images.loading import ImageLike
from vpr_dhe.sequences.odometry import Odometry


@dataclass(frozen=True)
class SequenceFrame:
    """One frame of a stream.

    Args:
        image: pixels, a path, or a function that returns the pixels when the frame is read, as recordings give.
        timestamp_s: in seconds; None if unknown.
        odometry: motion since the previous frame.
        name: a label; with a `FrameMemory`, the path of the frame in the images folder.
        dropped: number of frames skipped since the previous one; the odometry includes theirs.

    Raises:
        BadInputError: if the time is not finite.
    """

    image: ImageLike | Path | Callable[[], np.ndarray]
    timestamp_s: float | None = None
    odometry: Odometry | None = None
    name: str | None = None
    dropped: int = 0

    def __post_init__(self) -> None:
        if self.timestamp_s is not None and not isfinite(self.timestamp_s):
            raise BadInputError(f"a frame has the time {self.timestamp_s}; expected seconds, or None if unknown")

    def read(self) -> ImageLike | Path:
        """Return the image, or the path of its file.

        Raises:
            ImageError: if the image of a recording cannot be decoded; a file may still turn out to be unreadable.
        """
        return self.image() if callable(self.image) else self.image

    def after(self, skipped: "SequenceFrame") -> "SequenceFrame":
        """This frame with a dropped predecessor merged in: its motion and its count of dropped frames."""
        odometry = skipped.odometry.then(self.odometry) if skipped.odometry and self.odometry else None
        return replace(self, odometry=odometry, dropped=self.dropped + skipped.dropped + 1)


class DropPolicy(StrEnum):
    """Handling of frames that arrive while another is being processed.

    `latest` keeps only the newest, so answers are up to date. `none` keeps them all and makes the source wait when the
    queue is full.
    """

    latest = "latest"
    none = "none"


def read_live(source: Iterable[SequenceFrame], policy: DropPolicy, *, capacity: int = 8) -> Iterator[SequenceFrame]:
    """Read frames in a background thread.

    At most `capacity` frames are queued, or one under `latest`, which bounds the memory of a slow consumer. Errors of
    the source are raised here, after the frames before them. When iteration stops early, the thread ends as soon as the
    source yields its next frame.

    Raises:
        BadInputError: if the capacity is below 1.
    """
    if capacity < 1:
        raise BadInputError(f"the capacity is {capacity}; expected at least 1 frame")
    with closing(_LiveQueue(source, policy, capacity)) as queue:
        while (frame := queue.take()) is not None:
            yield frame


class _LiveQueue:
    """Queue between the thread that reads frames and the one that consumes them."""

    def __init__(self, source: Iterable[SequenceFrame], policy: DropPolicy, capacity: int) -> None:
        self._source, self._policy, self._capacity = source, policy, capacity
        self._waiting: deque[SequenceFrame] = deque()
        self._changed = Condition()
        self._ended, self._closed = False, False
        self._failure: BaseException | None = None
        # A source that waits for its camera forever must not keep the program from ending.
        Thread(target=self._read, name="frames", daemon=True).start()

    def take(self) -> SequenceFrame | None:
        """Wait for the next frame; None after the last."""
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._ended)
            if self._waiting:
                self._changed.notify_all()
                return self._waiting.popleft()
        if self._failure is not None:
            raise self._failure
        return None

    def close(self) -> None:
        """Let the reading thread end."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def _read(self) -> None:
        try:
            for frame in self._source:
                self._put(frame)
                if self._closed:
                    break
        except BaseException as error:  # raised again in the consuming thread
            self._failure = error
        finally:
            with self._changed:
                self._ended = True
                self._changed.notify_all()

    def _put(self, frame: SequenceFrame) -> None:
        with self._changed:
            if self._policy is DropPolicy.latest and self._waiting:
                frame = frame.after(self._waiting.pop())
            self._changed.wait_for(lambda: len(self._waiting) < self._capacity or self._closed)
            self._waiting.append(frame)
            self._changed.notify_all()
