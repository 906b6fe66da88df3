"""`vpr-dhe loops`: which frames of a recording show where the camera was before?"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from enum import StrEnum
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Annotated

import typer

from vpr_dhe.cli.common import (
    Device,
    WeightsOption,
    pick_device,
    require_writable,
    say,
    say_skipped,
    say_slow,
    sink_of,
)
from vpr_dhe.cli.photos import TimesOption, counted, photo_frames
from vpr_dhe.cli.recordings import RecordingOptions, frames_folder
from vpr_dhe.errors import BadInputError

if TYPE_CHECKING:
    from vpr_dhe.report.tables.loops import LoopFormat
    from vpr_dhe.sequences.frame_memory import Recent
    from vpr_dhe.sequences.frames import SequenceFrame
    from vpr_dhe.sequences.sequence_localizer import LocalizedFrame

NAME = "loops"
# A robot that turns round sees a place again after some seconds; a frame or two a second is usual.
_RECENT_SECONDS, _RECENT_FRAMES = 30.0, 30


class Format(StrEnum):
    """Output formats."""

    jsonl = "jsonl"
    csv = "csv"
    hloc = "hloc"


def run(
    recording: RecordingOptions,
    images: Annotated[Path | None, typer.Argument(help="Folder of frames, in order of times or names.")] = None,
    times: TimesOption = None,
    ignore_seconds: Annotated[
        float | None, typer.Option(min=0, help="Frames of the last seconds close no loop. [30, where there are times]")
    ] = None,
    ignore_frames: Annotated[
        int | None, typer.Option(min=0, help="Nor do the last so many frames. [30, where there are no times; else 0]")
    ] = None,
    min_probability: Annotated[float, typer.Option(min=0, max=1, help="Least probability of a loop.")] = 0.5,
    verifier: Annotated[str, typer.Option(help="Verifier, or none; see `vpr-dhe verifiers`.")] = "magsac",
    weights: WeightsOption = None,
    rerank: Annotated[int, typer.Option(min=1, help="Earlier frames to verify per frame.")] = 20,
    model: Annotated[str, typer.Option(help="Model name or file, see `vpr-dhe models`.")] = "sift-vlad",
    format: Annotated[Format, typer.Option(help="Output format.")] = Format.jsonl,
    out: Annotated[Path | None, typer.Option(help="Write the loops here instead of stdout.")] = None,
    index: Annotated[
        Path | None, typer.Option(help="Keep the frames as an index here, their images beside it in INDEX-frames.")
    ] = None,
    device: Annotated[Device, typer.Option(help="Where networks run.")] = Device.auto,
) -> None:
    """Find the loops that a recording or a folder of frames closes: pairs of frames of one place, as they are found."""
    from vpr_dhe.features.extractor import load_extractor
    from vpr_dhe.index.place_index import PlaceIndex
    from vpr_dhe.localization.localizer import Localizer
    from vpr_dhe.models.network_file import load_networks
    from vpr_dhe.report.tables.loops import LOOP_FORMATS
    from vpr_dhe.sequences.frame_memory import FrameMemory
    from vpr_dhe.sequences.loops import loops_among
    from vpr_dhe.sequences.motion import RouteMotion
    from vpr_dhe.sequences.sequence_localizer import SequenceLocalizer
    from vpr_dhe.verification.build import build_verifier
    from vpr_dhe.verification.estimators.registry import Resources

    require_writable(out)
    recording.require_alone("a folder of frames", given=images is not None, times=times)
    if index and recording.given:
        _require_vacant(frames_folder(index))
    recent = _recent(ignore_seconds, ignore_frames, timed=recording.given is not None or times is not None)
    say_slow(verifier, rerank)
    where = pick_device(device)
    extractor = load_extractor(model, where)
    checker = build_verifier(verifier, Resources(extractor, load_networks(weights or []), where))
    chosen, found = LOOP_FORMATS[format], 0
    with _frames(images, times, recording, chosen) as frames, _kept(index) as folder, sink_of(out) as sink:
        way = PlaceIndex.create(folder, extractor.spec, images or frames_folder(folder))
        try:
            # The clock of a video starts with it.
            with FrameMemory(way, checker, recent=recent, keep_times=recording.video is None) as memory:
                sequence = SequenceLocalizer(Localizer(memory, extractor, rerank=rerank))
                # Who comes back sees the same places in the other order.
                tracker = sequence.tracker(sequence.place_map(), RouteMotion(slowest=-2))
                if chosen.header:
                    print(chosen.header, file=sink)
                localized = _said(sequence.stream(frames, tracker=tracker, top_k=rerank))
                for loop in loops_among(localized, min_probability):
                    print(chosen.line(loop), file=sink, flush=True)
                    found += 1
        except KeyboardInterrupt:
            _say_interrupted(found, len(way), index)
            raise typer.Exit(1) from None
        say(f"{found} loops among {len(way)} frames")


def _say_interrupted(loops: int, frames: int, index: Path | None) -> None:
    kept = f"; the frames are safe in {index}, and a new run needs another --index" if index else ""
    say(f"interrupted: {loops} loops among the first {frames} frames are written{kept}")


def _require_vacant(folder: Path) -> None:
    """Raise where a folder for frames holds anything: `index` and `frames` give their files the same names."""
    if folder.exists() and not (folder.is_dir() and next(folder.iterdir(), None) is None):
        raise BadInputError(
            f"{folder} is there already, and --index stores frames in a new or empty folder of that name; give another "
            "--index, or move it away"
        )


def _recent(seconds: float | None, frames: int | None, *, timed: bool) -> "Recent":
    """Which frames close no loop: the last ones, and those of the last seconds where there are times."""
    from vpr_dhe.sequences.frame_memory import Recent

    if seconds is not None and not timed:
        raise BadInputError("--ignore-seconds needs times; give them by --times, or use --ignore-frames")
    if timed:
        return Recent(frames or 0, _RECENT_SECONDS if seconds is None else seconds)
    return Recent(_RECENT_FRAMES if frames is None else frames)


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


@contextmanager
def _kept(index: Path | None) -> Iterator[Path]:
    """The folder of the index, which is gone afterwards unless it was asked for."""
    if index is not None:
        yield index
        return
    with TemporaryDirectory(prefix="vpr-dhe-") as folder:
        yield Path(folder) / "way"


def _said(stream: "Iterator[LocalizedFrame]") -> "Iterator[LocalizedFrame]":
    for frame in stream:
        if frame.error:
            say_skipped(frame.name or "", frame.error)
        yield frame
