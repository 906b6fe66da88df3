"""Options of commands that take frames out of recordings."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vpr_dhe.cli.common import progress_bar, say, say_skipped
from vpr_dhe.errors import BadInputError

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from vpr_dhe.recordings.base import FrameSource
    from vpr_dhe.recordings.extraction import ExtractedFrames
    from vpr_dhe.recordings.selection import Selection
    from vpr_dhe.sequences.frames import SequenceFrame

# Headers of videos often only estimate how many frames there are.
_USUAL_SHARE = 0.9


@dataclass(frozen=True)
class RecordingOptions:
    """A bag or a video, and which of its frames to keep."""

    bag: Annotated[Path | None, typer.Option(help="Bag of ROS 1 or ROS 2 to take frames from.")] = None
    topic: Annotated[str | None, typer.Option(help="Topic of the bag's images, raw or compressed.")] = None
    fix_topic: Annotated[str | None, typer.Option(help="Topic of the bag's satellite fixes.")] = None
    video: Annotated[Path | None, typer.Option(help="Video file to take frames from.")] = None
    every: Annotated[int | None, typer.Option(min=1, help="Keep one of so many frames.")] = None
    min_seconds: Annotated[float | None, typer.Option(help="Keep frames at least so far apart in time.")] = None
    min_metres: Annotated[float | None, typer.Option(help="Keep frames at least so far apart, by fixes.")] = None

    def __post_init__(self) -> None:
        if self.bag and self.video:
            raise BadInputError("--bag and --video were given; take one recording at a time")
        if self.bag and not self.topic:
            raise BadInputError("--bag needs --topic, the topic of its images")
        for option, given, needed, there in (
            ("--topic", self.topic, "--bag", self.bag),
            ("--fix-topic", self.fix_topic, "--bag", self.bag),
            ("--min-metres", self.min_metres, "--fix-topic", self.fix_topic),
            ("--every", self.every, "--bag or --video", self.given),
            ("--min-seconds", self.min_seconds, "--bag or --video", self.given),
        ):
            if given is not None and there is None:
                raise BadInputError(f"{option} was given without {needed}")

    @property
    def given(self) -> Path | None:
        """The recording, if there is one."""
        return self.bag or self.video

    def require_alone(self, what: str, *, given: bool, times: Path | None) -> None:
        """Raise BadInputError unless there is either this or what else could be given, which alone needs times."""
        if given == (self.given is not None):
            raise BadInputError(f"give either {what}, or one recording by --bag or --video")
        if self.given and times:
            raise BadInputError("--times is for photos, and a recording has times of its own; leave it out")

    def extract(self, folder: Path, *, strict: bool) -> "ExtractedFrames":
        """Extract the frames into a folder of their own below this one; progress and what is wrong go to stderr."""
        from vpr_dhe.recordings.extraction import extract_frames

        try:
            with self._open() as source, progress_bar(source.announced_frames, "extracting", "frame") as bar:
                announced = source.announced_frames
                done = extract_frames(
                    source, self._selection(), folder, strict=strict, skipped=say_skipped, progress=bar.update
                )
        except KeyboardInterrupt:
            say(f"interrupted: frames are safe in {folder}; run the command again to go on")
            raise typer.Exit(1) from None
        if self.fix_topic and done.unplaced:
            say(f"{done.unplaced} of {done.seen} frames have no position by {self.fix_topic}")
        if done.seen is not None:
            self._say_if_cut_off(done.seen, announced)
        return done

    @contextmanager
    def frames(self, description: str) -> "Iterator[Iterator[SequenceFrame]]":
        """The frames as a stream, read as they are asked for; progress and what is wrong go to stderr."""
        from vpr_dhe.sequences.recorded import recorded_frames

        seen = 0

        def count(frames: int) -> None:
            nonlocal seen
            seen += frames
            bar.update(frames)

        with self._open() as source, progress_bar(source.announced_frames, description, "frame") as bar:
            yield recorded_frames(source, self._selection(), count)
            self._say_if_cut_off(seen, source.announced_frames)

    def _say_if_cut_off(self, seen: int, announced: int) -> None:
        if seen < _USUAL_SHARE * announced:
            say(f"{self.given} gave {seen} of the {announced} frames that it announces; it may be cut off")

    def _selection(self) -> "Selection":
        from vpr_dhe.recordings.selection import Selection

        return Selection(self.every, self.min_seconds, self.min_metres)

    def _open(self) -> "AbstractContextManager[FrameSource]":
        from vpr_dhe.recordings.bags import open_bag
        from vpr_dhe.recordings.videos import open_video

        if self.bag:
            assert self.topic, "seen to above"
            return open_bag(self.bag, self.topic, self.fix_topic)
        assert self.video, "asked to open no recording"
        return open_video(self.video)
