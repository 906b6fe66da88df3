"""The frames of a stream, and a thread that reads them from a live source while others are worked on."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from enum import StrEnum
from math import isfinite
from pathlib import Path
from threading import Condition, Thread

from vpr_dhe.errors import BadInputError
from vpr_dhe.images import ImageLike
from vpr_dhe.records import Image
from vpr_dhe.sequences.odometry import Odometry


@dataclass(frozen=True)
class SequenceFrame:
    """One frame of a stream.

    `image` may be what gives the image when it is looked at, as a recording does. `odometry` is the motion since the
    frame before. `name` is what to call it: the path that it is to have in the images folder, where frames are
    remembered. `dropped` counts the frames since the one before that nobody looked at; the odometry includes theirs.

    Raises:
        BadInputError: if the time is no finite number.
    """

    image: ImageLike | Path | Callable[[], Image]
    timestamp_s: float | None = None
    odometry: Odometry | None = None
    name: str | None = None
    dropped: int = 0

    def __post_init__(self) -> None:
        if self.timestamp_s is not None and not isfinite(self.timestamp_s):
            raise BadInputError(f"a frame has the time {self.timestamp_s}; expected seconds, or None where unknown")

    def look(self) -> ImageLike | Path:
        """The image, or the path of its file.

        Raises:
            ImageError: if it cannot be read, which of a file nobody knows yet.
        """
        return self.image() if callable(self.image) else self.image

    def after(self, unseen: "SequenceFrame") -> "SequenceFrame":
        """This frame, when the one before it is dropped."""
        odometry = unseen.odometry.then(self.odometry) if unseen.odometry and self.odometry else None
        return replace(self, odometry=odometry, dropped=self.dropped + unseen.dropped + 1)


class DropPolicy(StrEnum):
    """What becomes of frames that wait while another is worked on.

    `latest` keeps the newest alone: answers are about now. `none` keeps them all, and makes the source wait where too
    many do.
    """

    latest = "latest"
    none = "none"


def read_live(source: Iterable[SequenceFrame], policy: DropPolicy, *, capacity: int = 8) -> Iterator[SequenceFrame]:
    """Read frames in a thread of their own.

    At most `capacity` frames wait, or one under `latest`; so much memory is all that a slow consumer takes. What the
    source raises is raised here, after the frames that came before it. When the iteration ends early the thread does
    too, once the source gives it the frame that it waits for.

    Raises:
        BadInputError: if the capacity is less than one frame.
    """
    if capacity < 1:
        raise BadInputError(f"a queue of {capacity} frames holds none; expected at least 1")
    with closing(_LiveQueue(source, policy, capacity)) as queue:
        while (frame := queue.take()) is not None:
            yield frame


class _LiveQueue:
    """Frames between the thread that reads them and the one that takes them."""

    def __init__(self, source: Iterable[SequenceFrame], policy: DropPolicy, capacity: int) -> None:
        self._source, self._policy, self._capacity = source, policy, capacity
        self._waiting: deque[SequenceFrame] = deque()
        self._changed = Condition()
        self._ended, self._closed = False, False
        self._failure: BaseException | None = None
        # A source may wait for its camera for ever, and must not keep the program from ending.
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
        """Let the thread end."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def _read(self) -> None:
        try:
            for frame in self._source:
                self._put(frame)
                if self._closed:
                    break
        except BaseException as error:  # whatever it is, whoever takes the frames has to know
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
