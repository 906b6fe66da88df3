"""Lossless extraction of frames of a recording to a folder of image files.

An index reads its images again, for verifiers that use pixels, for pictures of matches, and to detect changes. Frames
are therefore extracted once to files, which work like any folder of images.
"""

import csv
import io
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from vpr_dhe.errors import BadInputError, DatasetError, ImageError
from vpr_dhe.recordings.base import FrameSource, RecordedFrame
from vpr_dhe.recordings.selection import Selection
from vpr_dhe.records import Progress, StrPath
from vpr_dhe.runtime.durable_files import TEMPORARY_SUFFIX, write_durably

TABLE_NAME = "frames.csv"
_CLAIM_NAME = "recording.json"


def frames_folder(index: StrPath) -> Path:
    """Default folder of the frames of an index, next to it."""
    return Path(f"{Path(index).absolute()}-frames")


@dataclass(frozen=True)
class ExtractedFrames:
    """Folder of extracted frames, with the table of their times and positions.

    `seen` is the number of frames of the recording, and `unplaced` the number of frames without a position; both are
    None if the frames were already extracted.
    """

    folder: Path
    seen: int | None = None
    unplaced: int | None = None

    @property
    def table(self) -> Path:
        """Table for `geography.position_table`."""
        return self.folder / TABLE_NAME


def extract_frames(
    source: FrameSource,
    selection: Selection,
    folder: Path,
    *,
    strict: bool = False,
    skipped: Callable[[str, str], object] = lambda *_: None,
    progress: Progress = lambda _: None,
) -> ExtractedFrames:
    """Write selected frames to a subfolder with the recording's name.

    An interrupted extraction is resumed. Once the table is written, the recording is not read again.

    Args:
        source: recording.
        selection: frames to keep.
        folder: parent of the recording's folder.
        strict: raise an error at the first damaged frame instead of skipping it.
        skipped: called with the name and the error of each damaged frame.
        progress: called for each frame that was read, selected or not.

    Raises:
        BadInputError: if the recording's folder contains frames of another recording or selection, or other files.
        DatasetError: if the recording is damaged, or no frame is selected.
        ImageError: with `strict`, at the first damaged frame.
    """
    writer = _FrameWriter(folder / source.name, source.keeps_unix_time)
    _claim(writer.folder, {"recording": source.identity, "selection": str(selection)})
    if (writer.folder / TABLE_NAME).exists():
        return ExtractedFrames(writer.folder)
    reason = "no frame has a position"
    for frame in selection.of(writer.counted(source.frames(), progress)):
        try:
            writer.write(frame)
        except ImageError as error:
            if strict:
                raise ImageError(f"frame {frame.number} of {source.identity}: {error}") from error
            skipped(f"frame {frame.number}", str(error))
            reason = str(error)
    if not writer.rows:
        raise DatasetError(f"none of {source.identity} could be kept ({reason if writer.seen else 'there is none'})")
    writer.finish()
    return ExtractedFrames(writer.folder, writer.seen, writer.unplaced)


@dataclass
class _FrameWriter:
    """Writer of frames to files named by frame number."""

    folder: Path
    keeps_unix_time: bool
    rows: list[tuple[str, ...]] = field(default_factory=list)
    seen: int = 0
    unplaced: int = 0

    def __post_init__(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        self._present = {path.stem: path.name for path in self.folder.iterdir() if path.suffix != TEMPORARY_SUFFIX}

    def counted(self, frames: Iterable[RecordedFrame], progress: Progress) -> Iterator[RecordedFrame]:
        """Yield frames and count them."""
        for frame in frames:
            self.seen += 1
            self.unplaced += frame.position is None
            progress(1)
            yield frame

    def write(self, frame: RecordedFrame) -> None:
        """Write one frame, unless its file exists."""
        stem = frame.stem
        if stem not in self._present:
            file = frame.image()
            self._present[stem] = write_durably(self.folder, f"{stem}{file.extension}", file.content).name
        position = frame.position
        degrees = (f"{position.latitude_deg:.9f}", f"{position.longitude_deg:.9f}") if position else ("", "")
        self.rows.append((self._present[stem], *degrees, f"{frame.time_s:.6f}"))

    def finish(self) -> None:
        """Write the table."""
        text = io.StringIO()
        table = csv.writer(text, lineterminator="\n")
        table.writerow(("image", "latitude", "longitude", "timestamp" if self.keeps_unix_time else "recording_s"))
        table.writerows(self.rows)
        write_durably(self.folder, TABLE_NAME, text.getvalue().encode())


def _claim(folder: Path, claim: dict[str, str]) -> None:
    """Store recording and selection in a folder, or check that they match the stored ones."""
    note = folder / _CLAIM_NAME
    if all(path == note or path.suffix == TEMPORARY_SUFFIX for path in folder.iterdir()):
        write_durably(folder, _CLAIM_NAME, json.dumps(claim, indent=2).encode())
        return
    if not note.exists():
        raise BadInputError(f"{folder} holds files already; give another folder for the frames")
    try:
        held = json.loads(note.read_bytes())
    except ValueError as error:
        raise BadInputError(f"{note} is damaged; remove {folder}, and run the command again") from error
    if held != claim:
        raise BadInputError(
            f"{folder} holds {_in_words(held)}, not {_in_words(claim)}; give another folder for the frames, or remove "
            "that one"
        )


def _in_words(claim: Mapping[str, str]) -> str:
    return ", ".join(claim.values())
