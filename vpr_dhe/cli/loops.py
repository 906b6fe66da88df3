"""`vpr-dhe loops`: which frames of a recording show where the camera was before?"""

from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vpr_dhe.cli.common import require_writable, say, say_skipped, sink_of
from vpr_dhe.cli.options import ModelOptions, VerifierOptions
from vpr_dhe.cli.photos import TimesOption, counted, photo_frames
from vpr_dhe.cli.recordings import RecordingOptions
from vpr_dhe.errors import BadInputError

if TYPE_CHECKING:
    from vpr_dhe.report.tables.loops import LoopFormat
    from vpr_dhe.sequences.frames import SequenceFrame

NAME = "loops"


class Format(StrEnum):
    """Output formats."""

    jsonl = "jsonl"
    csv = "csv"
    hloc = "hloc"


@dataclass(frozen=True)
class LoopVerifierOptions(VerifierOptions):
    """Fewer candidates than a query has: frames come many a second."""

    rerank: Annotated[int, typer.Option(min=1, help="Earlier frames to verify per frame.")] = 20


def run(
    recording: RecordingOptions,
    verification: LoopVerifierOptions,
    model: ModelOptions,
    images: Annotated[Path | None, typer.Argument(help="Folder of frames, in order of times or names.")] = None,
    times: TimesOption = None,
    ignore_seconds: Annotated[
        float | None, typer.Option(min=0, help="Frames of the last seconds close no loop. [30, where there are times]")
    ] = None,
    ignore_frames: Annotated[
        int | None, typer.Option(min=0, help="Nor do the last so many frames. [30, where there are no times; else 0]")
    ] = None,
    min_probability: Annotated[float, typer.Option(min=0, max=1, help="Least probability of a loop.")] = 0.5,
    format: Annotated[Format, typer.Option(help="Output format.")] = Format.jsonl,
    out: Annotated[Path | None, typer.Option(help="Write the loops here instead of stdout.")] = None,
    index: Annotated[
        Path | None, typer.Option(help="Keep the frames as an index here, their images beside it in INDEX-frames.")
    ] = None,
) -> None:
    """Find the loops that a recording or a folder of frames closes: pairs of frames of one place, as they are found."""
    from vpr_dhe.report.tables.loops import LOOP_FORMATS
    from vpr_dhe.sequences.loops import find_loops

    require_writable(out)
    recording.require_alone("a folder of frames", given=images is not None, times=times)
    if index and recording.given:
        _require_vacant(index)
    verification.say_if_slow()
    chosen, found, frames_remembered = LOOP_FORMATS[format], 0, 0

    def remembered(frames: int) -> None:
        nonlocal frames_remembered
        frames_remembered += frames

    with _frames(images, times, recording, chosen) as frames, sink_of(out) as sink:
        try:
            loops = find_loops(
                frames,
                index=index,
                images_folder=images,
                # The clock of a video starts with it.
                keep_times=recording.video is None,
                model=model.model,
                verifier=verification.verifier,
                weights=verification.weights or (),
                rerank=verification.rerank,
                ignore_seconds=ignore_seconds,
                ignore_frames=ignore_frames,
                min_probability=min_probability,
                **model.loading(),
                remembered=remembered,
                skipped=say_skipped,
            )
            if chosen.header:
                print(chosen.header, file=sink)
            with closing(loops):
                for loop in loops:
                    print(chosen.line(loop), file=sink, flush=True)
                    found += 1
        except KeyboardInterrupt:
            kept = f"; the frames are safe in {index}, and a new run needs another --index" if index else ""
            say(f"interrupted: {found} loops among the first {frames_remembered} frames are written{kept}")
            raise typer.Exit(1) from None
        say(f"{found} loops among {frames_remembered} frames")


def _require_vacant(index: Path) -> None:
    """Raise where the frames' folder holds anything: `index` and `frames` give their files the same names."""
    from vpr_dhe.recordings.extraction import frames_folder

    folder = frames_folder(index)
    if folder.exists() and not (folder.is_dir() and next(folder.iterdir(), None) is None):
        raise BadInputError(
            f"{folder} is there already, and --index stores frames in a new or empty folder of that name; give another "
            "--index, or move it away"
        )


@contextmanager
def _frames(
    images: Path | None, times: Path | None, recording: RecordingOptions, chosen: "LoopFormat"
) -> "Iterator[Iterator[SequenceFrame]]":
    """The frames, named as they will be in the index, by names that can be written."""
    if images is None:
        # The rest of their names is made of numbers, and of a topic without blanks.
        assert recording.given, "seen to by require_alone"
        chosen.require_name(recording.given.stem)
        with recording.frames("remembering") as recorded:
            yield (replace(frame, name=f"{frame.name}.jpg") for frame in recorded)
        return
    if not images.is_dir():
        raise BadInputError(f"{images} is no folder; give one of frames, or a recording by --bag or --video")
    photos = photo_frames([images], times, in_order=True)
    if not photos:
        raise BadInputError(f"{images} holds no images; give a folder of frames")
    photos = [replace(frame, name=Path(frame.name or "").relative_to(images).as_posix()) for frame in photos]
    for frame in photos:
        chosen.require_name(frame.name or "")
    with counted(photos, "remembering") as frames:
        yield frames
