"""Places that a robot has been at: an index that grows by the frames of a stream, for closing loops."""

import os
from collections import deque
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

import cv2

from vpr_dhe.errors import BadInputError
from vpr_dhe.features.base import ExtractorSpec
from vpr_dhe.geography.exif import with_exif
from vpr_dhe.images import image_size, read_file
from vpr_dhe.index.ingest import ExtractedImage, comparable
from vpr_dhe.index.place_index import PlaceIndex
from vpr_dhe.index.rows import Digest, FileStamp, modification_time_ns
from vpr_dhe.index.segments import IndexedImage
from vpr_dhe.index.writer import IndexWriter
from vpr_dhe.localization.database import PinnedIndex
from vpr_dhe.records import Features, Image, ImageRecord
from vpr_dhe.runtime.durable_files import write_durably
from vpr_dhe.sequences.frames import SequenceFrame
from vpr_dhe.verification.verifier import Verifier

_JPEG_QUALITY = 95


@dataclass(frozen=True)
class Recent:
    """Which frames are no candidates yet, because they show where the camera is anyway: a number, a time, or both."""

    frames: int = 30
    seconds: float = 0.0


@dataclass(frozen=True)
class _Moment:
    """When a frame was remembered."""

    id: int
    timestamp_s: float | None


class FrameMemory:
    """An index and the newest frames, which wait in memory until `flush_every` of them become a segment.

    Use it as a context: it holds the right to write to the index from beginning to end, and one thread uses it.
    A frame is found from the moment when it is remembered and no longer recent. It is durable once its segment is:
    a crash costs the features of the frames that wait, at most `flush_every`, and none of their image files, which
    `vpr-dhe index` picks up. Leaving the context flushes.

    Args:
        index: of this machine; its images folder is where frames that come as pixels are stored, as JPEG files.
        verifier: as for `VerifiedIndex`.
        recent: frames that are no candidates.
        flush_every: frames per segment. Small segments are merged as the index grows.
        keep_times: store times of frames with their images, which count from the Unix epoch there.
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
            raise BadInputError(f"segments of {flush_every} frames hold none; expected flush_every from 1")
        self.index, self._verifier, self._limits = index, verifier, recent or Recent()
        self._flush_every, self._keep_times = flush_every, keep_times
        self._waiting: dict[int, ExtractedImage] = {}
        self._recent: deque[_Moment] = deque()
        self._first_id = 0
        self._writer: IndexWriter | None = None
        self._open = ExitStack()

    def __enter__(self) -> "FrameMemory":
        """Take the right to write.

        Raises:
            IndexBusyError: if another process is writing.
        """
        self._writer = self._open.enter_context(self.index.writing())
        self._first_id = self._recent[0].id if self._recent else self._writer.manifest.next_id
        return self

    def __exit__(self, *_: object) -> None:
        """Make durable what waits, and give the right to write back."""
        with self._open:
            self.flush()

    def pinned(self) -> PinnedIndex:
        """The stored frames and those that wait, without those that are recent; valid until the next frame."""
        recent = frozenset(moment.id for moment in self._recent)
        return PinnedIndex(self.index.snapshot, self._verifier, pending=self._waiting, excluded=recent)

    @property
    def spec(self) -> ExtractorSpec:
        """The extractor that filled the index."""
        return self.index.spec

    @property
    def verifies(self) -> bool:
        """Whether there is a verifier."""
        return self._verifier is not None

    @property
    def ids(self) -> list[int]:
        """Ids of all images, those that wait and those that are recent included, ascending."""
        return [*self.index.ids.tolist(), *self._waiting]

    @property
    def remembered(self) -> list[int]:
        """Ids of the frames of this context, in the order in which they were remembered; the last may be recent."""
        return [id for id in self.ids if id >= self._first_id]

    @property
    def recent(self) -> int:
        """How many frames are no candidates yet."""
        return len(self._recent)

    def advance(self, timestamp_s: float | None) -> None:
        """Let time pass: frames that are recent no longer become candidates."""
        while self._recent and not self._is_recent(timestamp_s):
            self._recent.popleft()

    def _is_recent(self, now_s: float | None) -> bool:
        """Whether the oldest frame still is."""
        oldest = self._recent[0]
        if len(self._recent) <= self._limits.frames:
            return True
        if now_s is None or oldest.timestamp_s is None:
            return False
        return now_s - oldest.timestamp_s < self._limits.seconds

    def remember(self, frame: SequenceFrame, image: Image, features: Features) -> int:
        """Add a frame; returns the id that its image has from now on.

        Raises:
            BadInputError: if a frame has no name, or the name of an indexed image; or its file lies elsewhere than in
                the index's images folder, or its pixels would be stored where a file is.
        """
        writer = self._require_writer()
        record, stamp = self._store(frame, image)
        id = writer.manifest.next_id + len(self._waiting)
        vector = comparable(features.global_descriptor, self.spec).cpu()
        kept = replace(features, global_descriptor=vector, local_map=features.local_map.cpu())
        self._waiting[id] = ExtractedImage(len(self._waiting), IndexedImage(record, image_size(image)), stamp, kept)
        self._recent.append(_Moment(id, frame.timestamp_s))
        self.advance(frame.timestamp_s)
        if len(self._waiting) >= self._flush_every:
            self.flush()
        return id

    def flush(self) -> None:
        """Make the frames that wait durable, as one segment."""
        if self._waiting:
            self._require_writer().add_extracted(list(self._waiting.values()))
            self._waiting.clear()

    def _require_writer(self) -> IndexWriter:
        if self._writer is None:
            raise BadInputError("frames are remembered inside `with FrameMemory(...) as memory:` only")
        return self._writer

    def _store(self, frame: SequenceFrame, image: Image) -> tuple[ImageRecord, FileStamp]:
        """Have the frame's file in the images folder, and say what it is."""
        folder = Path(self.index.manifest.images_folder)
        path = _path_of(frame, folder)
        waiting = {described.indexed.record.path for described in self._waiting.values()}
        if self.index.find(path) is not None or path in waiting:
            raise BadInputError(f"{path} is indexed already; give each frame a name of its own")
        if not isinstance(frame.image, Path):
            if os.path.lexists(folder / path):
                raise BadInputError(
                    f"{folder / path} is there already, and no frame of this index; give the frame another name, or "
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
    """The path that a frame has in the images folder."""
    if isinstance(frame.image, Path):
        path = frame.image.absolute()
        # Photos and folders below may be links to elsewhere, as `list_images` allows.
        root = next((parent for parent in path.parents if parent.resolve() == folder), None)
        if root is None:
            raise BadInputError(
                f"frame {frame.image} lies outside of {folder}, whose images the index is of; move it there, or give "
                "its pixels and a name"
            )
        return path.relative_to(root).as_posix()
    if not frame.name:
        raise BadInputError("a frame of pixels has no name; give one to remember it by, such as day-1/000042.jpg")
    return frame.name
