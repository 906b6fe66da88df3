"""Options of commands that read frames of recordings."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vpr_dhe.cli.shared.callbacks import existing_file
from vpr_dhe.cli.shared.progress import print_stderr, progress_bar, report_skipped
from vpr_dhe.errors import BadInputError

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from vpr_dhe.recordings.base import FrameSource
    from vpr_dhe.recordings.extraction import ExtractedFrames
    from vpr_dhe.recordings.selection import Selection
    from vpr_dhe.sequences.frames import SequenceFrame

# Headers of videos often only estimate the number of frames.
_MIN_SHARE = 0.9


@dataclass(frozen=True)
class RecordingOptions:
    """Bag or video, and the selection of its frames."""

    TITLE = "Recording"

    bag: Annotated[
        Path | None, typer.Option(help="ROS 1 or ROS 2 bag to read frames from.", callback=existing_file)
    ] = None
    topic: Annotated[str | None, typer.Option(help="Topic of the bag's images, raw or compressed.")] = None
    fix_topic: Annotated[str | None, typer.Option(help="Topic of the bag's satellite fixes.")] = None
    video: Annotated[Path | None, typer.Option(help="Video file to read frames from.", callback=existing_file)] = None
    track: Annotated[
        Path | None,
        typer.Option(help="GPX file with the positions of the video's camera, by time.", callback=existing_file),
    ] = None
    video_start: Annotated[
        str | None,
        typer.Option(
            metavar="TIME",
            help="Time of the video's first frame, in ISO 8601, UTC unless it has an offset. [in its header, or the "
            "track's first point]",
        ),
    ] = None
    every: Annotated[int | None, typer.Option(min=1, help="Keep every n-th frame.")] = None
    min_seconds: Annotated[float | None, typer.Option(help="Minimum time between kept frames.")] = None
    min_metres: Annotated[
        float | None, typer.Option(help="Minimum distance between kept frames, by fixes or track.")
    ] = None

    def __post_init__(self) -> None:
        if self.bag and self.video:
            raise BadInputError("--bag and --video were given; give one recording at a time")
        if self.bag and not self.topic:
            raise BadInputError("--bag needs --topic, the topic of its images")
        for option, value, needed, given in (
            ("--topic", self.topic, "--bag", self.bag),
            ("--fix-topic", self.fix_topic, "--bag", self.bag),
            ("--track", self.track, "--video", self.video),
            ("--video-start", self.video_start, "--track", self.track),
            ("--min-metres", self.min_metres, "--fix-topic or --track", self.fix_topic or self.track),
            ("--every", self.every, "--bag or --video", self.given),
            ("--min-seconds", self.min_seconds, "--bag or --video", self.given),
        ):
            if value is not None and given is None:
                raise BadInputError(f"{option} needs {needed}; add it, or leave {option} out")

    @property
    def given(self) -> Path | None:
        """Path of the recording; None if there is none."""
        return self.bag or self.video

    @property
    def has_unix_times(self) -> bool:
        """Whether times of frames count from the Unix epoch; those of a video without a track count from its start."""
        return self.video is None or self.track is not None

    def require_alone(self, what: str, *, given: bool, times: Path | None) -> None:
        """Raise BadInputError unless exactly one of a recording and `what` is given, and times only with the latter."""
        if given == (self.given is not None):
            raise BadInputError(f"give either {what}, or one recording by --bag or --video")
        if self.given and times:
            raise BadInputError("--times is for photos, and a recording holds its own times; leave it out")

    def extract(self, folder: Path, *, strict: bool) -> "ExtractedFrames":
        """Extract the frames into a subfolder; progress and warnings go to stderr."""
        from vpr_dhe.recordings.extraction import extract_frames

        try:
            with self._open() as source, progress_bar(source.announced_frames, "extracting", "frame") as bar:
                announced = source.announced_frames
                _print_notes(source)
                done = extract_frames(
                    source, self._selection(), folder, strict=strict, skipped=report_skipped, progress=bar.update
                )
        except KeyboardInterrupt:
            print_stderr(f"interrupted: frames are safe in {folder}; run the command again to continue")
            raise typer.Exit(1) from None
        if (placed_by := self.fix_topic or self.track) and done.unplaced:
            print_stderr(f"{done.unplaced} of {done.seen} frames have no position by {placed_by}")
        if done.seen is not None:
            self._warn_if_truncated(done.seen, announced)
        return done

    @contextmanager
    def frames(self, description: str) -> "Iterator[Iterator[SequenceFrame]]":
        """Yield the frames as a lazy stream; progress and warnings go to stderr."""
        from vpr_dhe.sequences.recording_stream import recorded_frames

        seen = 0

        def count(frames: int) -> None:
            nonlocal seen
            seen += frames
            bar.update(frames)

        with self._open() as source, progress_bar(source.announced_frames, description, "frame") as bar:
            _print_notes(source)
            yield recorded_frames(source, self._selection(), count)
            self._warn_if_truncated(seen, source.announced_frames)

    def _warn_if_truncated(self, seen: int, announced: int) -> None:
        if seen < _MIN_SHARE * announced:
            print_stderr(f"{self.given} has {seen} of the {announced} frames that it announces; it may be truncated")

    def _selection(self) -> "Selection":
        from vpr_dhe.recordings.selection import Selection

        return Selection(self.every, self.min_seconds, self.min_metres)

    def _open(self) -> "AbstractContextManager[FrameSource]":
        from vpr_dhe.recordings.bags import open_bag
        from vpr_dhe.recordings.videos import open_video

        if self.bag:
            assert self.topic, "checked by __post_init__"
            return open_bag(self.bag, self.topic, self.fix_topic)
        assert self.video, "callers check that there is a recording"
        return open_video(self.video, self.track, self.video_start)


def _print_notes(source: "FrameSource") -> None:
    """Print one line on stderr for each topic of a bag with implausible stamps, and on the start of a track's video."""
    from vpr_dhe.recordings.bags import BagSource
    from vpr_dhe.recordings.videos import VideoSource

    for note in source.notes if isinstance(source, (BagSource, VideoSource)) else ():
        print_stderr(note)
