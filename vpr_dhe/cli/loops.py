"""`vpr-dhe loops`: loop closures of a recording."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field, replace
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vpr_dhe.cli.shared.callbacks import existing_file, existing_folder, writable_file
from vpr_dhe.cli.shared.help import OUTPUT
from vpr_dhe.cli.shared.options import BitDepthOption, ModelOptions, VerifierOptions
from vpr_dhe.cli.shared.progress import (
    chosen_format,
    open_output,
    print_stderr,
    report_blank,
    report_left_out,
    report_skipped,
)
from vpr_dhe.cli.shared.queries import TimesOption, naming_jumps, photo_frames, photo_records, with_progress
from vpr_dhe.cli.shared.recordings import RecordingOptions
from vpr_dhe.cli.shared.rerun import RerunOption, watched_loops
from vpr_dhe.errors import BadInputError
from vpr_dhe.runtime.choices import AUTO

if TYPE_CHECKING:
    from typing import TextIO

    from vpr_dhe.records import ImageRecord
    from vpr_dhe.report.tables.loops import LoopFormat
    from vpr_dhe.sequences.frames import SequenceFrame
    from vpr_dhe.sequences.loops import Loop

NAME = "loops"
_EFFECT_OF_JUMPS = "; frames before a jump count as recent, and close no loop, until time has passed after it"
EXAMPLES = """
vpr-dhe loops frames --times times.csv --out loops.csv
vpr-dhe loops --bag drive.bag --topic /camera/image_raw --min-seconds 0.5
vpr-dhe loops --video walk.mp4 --ignore-seconds 60 --min-probability 0.9
vpr-dhe loops frames --times poses.csv --rerun loops.rrd
"""


class Format(StrEnum):
    """Output formats."""

    jsonl = "jsonl"
    csv = "csv"
    hloc = "hloc"
    g2o = "g2o"


@dataclass(frozen=True)
class LoopVerifierOptions(VerifierOptions):
    """Verifier options with fewer candidates than a query, because frames come many a second."""

    rerank: Annotated[
        int,
        typer.Option(
            min=1,
            help="Number of earlier frames to re-rank; most verifiers verify the 16 that a coarse pass selects.",
        ),
    ] = 20


@dataclass(frozen=True)
class PhotoOptions:
    """Folder of frames, and their times."""

    images: Annotated[
        Path | None, typer.Argument(help="Folder of frames, sorted by times or names.", callback=existing_folder)
    ] = None
    times: TimesOption = None

    def records(self) -> "Sequence[ImageRecord]":
        """Records of the frames by the table with times, in the order taken; none without it."""
        return photo_records(self.images, self.times) if self.images and self.times else ()


@dataclass(frozen=True)
class LoopOptions:
    """Frames that may close a loop, and how probable it must be."""

    ignore_seconds: Annotated[
        float | None,
        typer.Option(
            min=0,
            help="Ignore frames of the last seconds as candidates: they show the place that the camera is still at, "
            "which is no loop. Raise it for a camera that stands or moves slowly. [30, with times]",
        ),
    ] = None
    ignore_frames: Annotated[
        int | None,
        typer.Option(
            min=0, help="Ignore the last n frames as candidates, for the same reason. [30 without times, else 0]"
        ),
    ] = None
    bit_depth: BitDepthOption = None
    min_probability: Annotated[float, typer.Option(min=0, max=1, help="Minimum probability of a loop.")] = 0.5

    @property
    def ignored_text(self) -> str:
        """Part of a sentence that says which frames were no candidates by default."""
        if self.ignore_seconds is not None or self.ignore_frames is not None:
            return ""
        return (
            "; the last 30 s (30 frames without times) before each frame are no loops: the camera is still there; "
            "--ignore-seconds and --ignore-frames change that"
        )


@dataclass(frozen=True)
class OutputOptions:
    """Files that loops are written to, their format, and the index of the frames."""

    TITLE = OUTPUT

    format: Annotated[
        Format | None, typer.Option(help="Output format. [default: from the extension of --out, else jsonl]")
    ] = None
    out: Annotated[
        Path | None, typer.Option(help="Write the loops here instead of stdout.", callback=writable_file)
    ] = None
    rerun: RerunOption = None
    index: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="Keep the frames as an index here, with their images in INDEX-frames."),
    ] = None


def run(
    photos: PhotoOptions,
    limits: LoopOptions,
    recording: RecordingOptions,
    verification: LoopVerifierOptions,
    model: ModelOptions,
    output: OutputOptions,
) -> None:
    """Find loop closures, pairs of frames of one place, in a recording or a folder of frames."""
    format = chosen_format(output.format, output.out, Format.jsonl)
    recording.require_alone("a folder of frames", given=photos.images is not None, times=photos.times)
    existing_file(photos.times)
    from vpr_dhe.report.tables.loops import LOOP_FORMATS
    from vpr_dhe.sequences.loops import find_loops

    if output.index and recording.given:
        _require_vacant(output.index)
    verification.warn_if_slow()
    line_format = _graph(photos) if format is Format.g2o else LOOP_FORMATS[format]
    counts = _Counts()
    watching = watched_loops(output.rerun, photos.records() if output.rerun else ())
    with _frames(photos, recording, line_format) as frames, open_output(output.out) as file, watching as watched:
        try:
            loops = find_loops(
                naming_jumps(watched.frames(frames), _EFFECT_OF_JUMPS),
                index=output.index,
                images_folder=photos.images,
                # The index stores times since the Unix epoch.
                keep_times=recording.has_unix_times,
                bit_depth=limits.bit_depth or AUTO,
                model=model.model,
                verifier=verification.verifier,
                weights=verification.weights or (),
                rerank=verification.rerank,
                ignore_seconds=limits.ignore_seconds,
                ignore_frames=limits.ignore_frames,
                min_probability=limits.min_probability,
                **model.loading(),
                remembered=counts.add_frames,
                skipped=report_skipped,
                blank=report_blank,
            )
            with closing(loops):
                _write_loops(watched.results(loops), line_format, file, counts)
        except KeyboardInterrupt:
            kept = f"; the frames are safe in {output.index}, and a new run needs another --index"
            print_stderr(
                f"interrupted: {counts.loops} loops among the first {counts.frames} frames are written"
                f"{kept if output.index else ''}"
            )
            raise typer.Exit(1) from None
        report_left_out(counts.left_out, written=True, fault=line_format.fault)
        print_stderr(f"{counts.loops} loops among {counts.frames} frames{limits.ignored_text}")


@dataclass
class _Counts:
    """Numbers of loops and frames so far, and names that keep loops out of the output."""

    loops: int = 0
    frames: int = 0
    left_out: list[str] = field(default_factory=list)

    def add_frames(self, count: int) -> None:
        """Count frames just added to the index."""
        self.frames += count


def _write_loops(loops: "Iterable[Loop]", line_format: "LoopFormat", output: "TextIO", counts: _Counts) -> None:
    """Write and count each loop as soon as it is found."""
    if line_format.header:
        print(line_format.header, file=output)
    for loop in loops:
        counts.loops += 1
        if (unfit := line_format.unfit(loop.query, loop.match.image)) is not None:
            counts.left_out.append(unfit)
        else:
            print(line_format.line(loop), file=output, flush=True)


def _require_vacant(index: Path) -> None:
    """Raise BadInputError unless the folder of frames is new or empty: other runs give files the same names."""
    from vpr_dhe.recordings.extraction import frames_folder

    folder = frames_folder(index)
    if folder.exists() and not (folder.is_dir() and next(folder.iterdir(), None) is None):
        raise BadInputError(
            f"{folder} already exists, and --index stores frames in a new or empty folder of that name; give another "
            "--index, or move the folder"
        )


def _require_fitting(line_format: "LoopFormat", names: Sequence[str]) -> None:
    """Raise BadInputError if the format can hold none of the names; others are left out."""
    unfit = [name for name in names if line_format.unfit(name) is not None]
    if len(unfit) == len(names):
        report_left_out(unfit, written=False, fault=line_format.fault)


def _graph(photos: PhotoOptions) -> "LoopFormat":
    """Format of a pose graph of the frames of a folder, by the positions and headings of a table.

    Raises:
        BadInputError: if there is no table, or it gives no frame a position in metres and a heading.
    """
    from vpr_dhe.report.tables.loops import g2o_format

    if photos.images is None or photos.times is None:
        raise BadInputError(
            "--format g2o needs a folder of frames with positions in metres and headings, given by --times CSV; use "
            "--format csv"
        )
    return g2o_format(photos.records())


@contextmanager
def _frames(
    photos: PhotoOptions, recording: RecordingOptions, line_format: "LoopFormat"
) -> "Iterator[Iterator[SequenceFrame]]":
    """Yield the frames, named as in the index, by names that the format can hold."""
    images = photos.images
    if images is None:
        # The rest of a name is numbers and a topic, without blanks.
        assert recording.given, "checked by require_alone"
        _require_fitting(line_format, [recording.given.stem])
        with recording.frames("remembering") as recorded:
            yield (replace(frame, name=f"{frame.name}.jpg") for frame in recorded)
        return
    if not images.is_dir():
        raise BadInputError(f"{images} is no folder; give a folder of frames, or a recording by --bag or --video")
    listed = photo_frames([images], photos.times, in_order=True)
    if not listed:
        raise BadInputError(f"{images} holds no images; give a folder of frames")
    listed = [replace(frame, name=Path(frame.name or "").relative_to(images).as_posix()) for frame in listed]
    _require_fitting(line_format, [frame.name or "" for frame in listed])
    with with_progress(listed, "remembering") as frames:
        yield frames
