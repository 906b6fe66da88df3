"""Memory of the frames of a stream: an index that grows while it is searched, for loop closure."""

import os
from collections import deque
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

import cv2

from vpr_dhe.errors import BadInputError
from vpr_dhe.features.base import ExtractorSpec
from vpr_dhe.geography.exif import with_exif
from vpr_dhe.images.loading import image_size
from vpr_dhe.images.opened import read_file
from vpr_dhe.index.image_folders import ImageFolders
from vpr_dhe.index.ingest import ExtractedImage, comparable
from vpr_dhe.index.place_index import PlaceIndex
from vpr_dhe.index.rows import Digest, FileStamp, modification_time_ns
from vpr_dhe.index.segments import IndexedImage
from vpr_dhe.index.writer import IndexWriter
from vpr_dhe.localization.database import PinnedIndex
from vpr_dhe.recordings.clock import StreamClock
from vpr_dhe.records import Features, Image, ImageRecord
from vpr_dhe.runtime.durable_files import write_durably
from vpr_dhe.sequences.frames import SequenceFrame
from vpr_dhe.verification.verifier import Verifier

_JPEG_QUALITY = 95


@dataclass(frozen=True)
class Recent:
    """Frames that are too recent to be candidates: the last `frames`, and those younger than `seconds`; both apply."""

    frames: int = 30
    seconds: float = 0.0


@dataclass(frozen=True)
class _Moment:
    """Id and time of an appended frame."""

    id: int
    timestamp_s: float | None


class FrameMemory:
    """Index of the frames of a stream; the newest wait in memory until `flush_every` of them become a segment.

    Use it as a context manager: it holds the write lock of the index throughout, and must be used from one thread. A
    frame can be retrieved as soon as it is appended and no longer recent, unless it is blank. It is durable once its
    segment is: a crash costs the features of at most `flush_every` pending frames, but none of their image files, which
    `vpr-dhe index` picks up. Leaving the context flushes.

    Args:
        index: on this machine; frames given as pixels are stored in its images folder as JPEG files.
        verifier: None keeps the order of retrieval.
        recent: frames that are no candidates yet.
        flush_every: frames per segment, at least 1. Small segments are merged as the index grows.
        keep_times: store the times of frames with their images, as seconds since the Unix epoch.

    Raises:
        BadInputError: if `flush_every` is below 1.
    """

    def __init__(
        self,
        index: PlaceIndex,
        verifier: Verifier | None,
        *,
        recent: Recent | None = None,
        flush_every: int = 64,
        keep_times: bool = True,
    ) -> None:
        if flush_every < 1:
            raise BadInputError(f"flush_every is {flush_every}; expected at least 1 frame per segment")
        self.index, self._verifier, self._limits = index, verifier, recent or Recent()
        self._flush_every, self._keep_times = flush_every, keep_times
        self._pending: dict[int, ExtractedImage] = {}
        self._recent: deque[_Moment] = deque()
        self._blank: set[int] = set()
        self._clock = StreamClock()
        self._now_s: float | None = None  # of the frame that is followed and not appended yet
        self._first_id = 0
        self._writer: IndexWriter | None = None
        self._open = ExitStack()

    def __enter__(self) -> "FrameMemory":
        """Take the write lock of the index.

        Raises:
            IndexBusyError: if another process is writing to it.
        """
        self._writer = self._open.enter_context(self.index.writing())
        self._first_id = self._recent[0].id if self._recent else self._writer.manifest.next_id
        return self

    def __exit__(self, *_: object) -> None:
        """Flush pending frames and release the write lock."""
        try:
            with self._open:
                self.flush()
        finally:
            self._writer = None

    def pinned(self) -> PinnedIndex:
        """Pin the stored and pending frames without recent and blank ones; valid until the next frame."""
        excluded = frozenset(self._blank.union(moment.id for moment in self._recent))
        return PinnedIndex(self.index.snapshot, self._verifier, pending=self._pending, excluded=excluded)

    @property
    def spec(self) -> ExtractorSpec:
        """Spec of the extractor that filled the index."""
        return self.index.spec

    @property
    def image_count(self) -> int:
        """Number of images."""
        return len(self.index) + len(self._pending)

    @property
    def appended(self) -> list[int]:
        """Ids of the frames appended in this context, in order; the last ones may be recent."""
        return [id for id in self.pinned().image_ids() if id >= self._first_id]

    @property
    def recent(self) -> int:
        """Number of frames that are no candidates yet."""
        return len(self._recent)

    def advance(self, timestamp_s: float | None) -> None:
        """Advance the clock: frames that are no longer recent become candidates."""
        while self._recent and not self._is_recent(timestamp_s):
            self._recent.popleft()

    def _is_recent(self, now_s: float | None) -> bool:
        """Whether the oldest recent frame is still recent."""
        oldest = self._recent[0]
        if len(self._recent) <= self._limits.frames:
            return True
        if now_s is None or oldest.timestamp_s is None:
            return False
        return now_s - oldest.timestamp_s < self._limits.seconds

    def follow(self, timestamp_s: float | None) -> None:
        """Advance to the time of the frame that is appended next; a jump counts as a usual step (`StreamClock`)."""
        if timestamp_s is not None:
            self._clock.advance(timestamp_s)
            self._now_s = self._clock.now_s
            self.advance(self._now_s)

    def append(self, frame: SequenceFrame, image: Image, features: Features) -> int:
        """Append a frame and return the id of its image.

        Raises:
            BadInputError: if the frame has no name, or the name of an indexed image; if its file lies outside the
                index's images folder; or if its pixels would overwrite a file.
        """
        writer = self._require_writer()
        record, stamp = self._store(frame, image)
        id = writer.manifest.next_id + len(self._pending)
        vector = comparable(features.global_descriptor, self.spec).cpu()
        code = None if features.code is None else features.code.cpu()
        kept = replace(features, global_descriptor=vector, local_map=features.local_map.cpu(), code=code)
        self._pending[id] = ExtractedImage(len(self._pending), IndexedImage(record, image_size(image)), stamp, kept)
        if kept.is_blank:
            self._blank.add(id)
        now_s, self._now_s = frame.timestamp_s if self._now_s is None else self._now_s, None
        self._recent.append(_Moment(id, now_s))
        self.advance(now_s)
        if len(self._pending) >= self._flush_every:
            self.flush()
        return id

    def flush(self) -> None:
        """Write the pending frames to disk as one segment."""
        if not self._pending:
            return
        try:
            self._require_writer().add_extracted(list(self._pending.values()))
        except BaseException:
            # The index may have some or all of them already, which the next flush must not add again.
            left = [(id, one) for id, one in self._pending.items() if self.index.find(one.indexed.record.path) is None]
            self._pending = {id: replace(one, place=place) for place, (id, one) in enumerate(left)}
            raise
        self._pending.clear()

    def _require_writer(self) -> IndexWriter:
        if self._writer is None:
            raise BadInputError("the frame memory is not open; use it inside `with FrameMemory(...) as memory:`")
        return self._writer

    def _store(self, frame: SequenceFrame, image: Image) -> tuple[ImageRecord, FileStamp]:
        """Make sure that the frame's file is in the images folder; return its record and stamp."""
        folder = Path(self.index.manifest.images_folder)
        path = _path_of(frame, folder)
        pending = {extracted.indexed.record.path for extracted in self._pending.values()}
        if self.index.find(path) is not None or path in pending:
            raise BadInputError(f"{path} is indexed already; give each frame a unique name")
        if not isinstance(frame.image, Path):
            if os.path.lexists(folder / path):
                raise BadInputError(
                    f"{folder / path} exists already but is not in this index; give the frame another name, or "
                    "the index another images folder"
                )
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            _, encoded = cv2.imencode(
                ".jpg", cv2.cvtColor(image, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY]
            )
            write_durably((folder / path).parent, (folder / path).name, encoded.tobytes())
        modified_ns, content = modification_time_ns(folder / path), read_file(folder / path)
        record = with_exif(ImageRecord(path, timestamp_s=frame.timestamp_s if self._keep_times else None), content)
        return record, FileStamp(len(content), modified_ns, Digest.of(content))


def _path_of(frame: SequenceFrame, folder: Path) -> str:
    """Path of a frame relative to the images folder."""
    if isinstance(frame.image, Path):
        path = ImageFolders(str(folder)).name_within(Path(os.path.abspath(frame.image)))  # noqa: PTH100 (resolve follows links)
        if path is None:
            raise BadInputError(
                f"frame {frame.image} lies outside of {folder}, the images folder of the index; move it there, or give "
                "its pixels and a name"
            )
        return path
    if not frame.name:
        raise BadInputError("a frame given as pixels has no name; give one, such as day-1/000042.jpg")
    return frame.name
