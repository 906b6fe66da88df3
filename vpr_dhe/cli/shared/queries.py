"""Photos and folders of photos on the command line, with times from a table."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeAlias

import typer

from vpr_dhe.cli.shared.progress import print_stderr, progress_bar, report_listing
from vpr_dhe.errors import BadInputError

if TYPE_CHECKING:
    from vpr_dhe.records import ImageRecord, Progress
    from vpr_dhe.sequences.frames import SequenceFrame

TimesOption: TypeAlias = Annotated[
    Path | None, typer.Option(help="CSV with times of the photos of one folder, such as frames.csv of a bag.")
]


def photo_frames(paths: Sequence[Path], times: Path | None, *, in_order: bool) -> "list[SequenceFrame]":
    """List the photos of files and folders, named by their paths.

    With `in_order` they are sorted by their times, or by their names, with runs of digits as numbers, where there is no
    table or a few of its times are implausible, which is said on stderr (see `order_taken`).

    Raises:
        BadInputError: if a path does not exist, a table is given for anything but one folder, or it gives a photo to be
            sorted no time.
        ListingError: if no photo is found because a folder cannot be listed; other such folders are named on stderr.
    """
    from vpr_dhe.images.listing import survey_images
    from vpr_dhe.sequences.frame_order import natural_key, order_taken
    from vpr_dhe.sequences.frames import SequenceFrame

    frames: list[SequenceFrame] = []
    for path in paths:
        if path.is_dir():
            listing = survey_images(path)
            report_listing(listing)
            names = listing.paths
            time_of = (
                {} if times is None else {record.path: record.timestamp_s for record in _timed(path, names, times)}
            )
            frames += [SequenceFrame(path / name, time_of.get(name), name=str(path / name)) for name in names]
        elif not path.exists():
            raise BadInputError(f"query {path} does not exist; give images or folders of images")
        else:
            frames.append(SequenceFrame(path, name=str(path)))
    if times is not None and (len(paths) != 1 or not paths[0].is_dir()):
        raise BadInputError("--times holds times of the photos of one folder; give only that folder")
    if not in_order:
        return frames
    if times is None:
        return sorted(frames, key=lambda frame: natural_key(frame.name or ""))
    if untimed := [frame.name for frame in frames if frame.timestamp_s is None]:
        raise BadInputError(f"{times} gives {len(untimed)} photos no time, such as {untimed[0]}; give one to each")
    taken = order_taken([frame.name or "" for frame in frames], [frame.timestamp_s or 0.0 for frame in frames])
    if taken.note:
        print_stderr(f"{times}: {taken.note}")
    return [replace(frames[number], timestamp_s=taken.times_s[number]) for number in taken.order]


def photo_records(folder: Path, times: Path) -> "list[ImageRecord]":
    """Records of the photos of a folder by a table with times, in the order taken, as `photo_frames` sorts them."""
    from vpr_dhe.images.listing import survey_images
    from vpr_dhe.sequences.frame_order import order_taken

    records = _timed(folder, survey_images(folder).paths, times)
    order = order_taken([record.path for record in records], [record.timestamp_s or 0.0 for record in records]).order
    return [records[number] for number in order]


def naming_jumps(frames: "Iterable[SequenceFrame]", effect: str = "") -> "Iterator[SequenceFrame]":
    """Pass frames on, and print one line on stderr, with its effect, at the first jump of their clock."""
    from vpr_dhe.recordings.clock import StreamClock

    clock, named = StreamClock(), False
    for frame in frames:
        jump_s = None if frame.timestamp_s is None else clock.advance(frame.timestamp_s)
        if jump_s is not None and not named:
            named = True
            print_stderr(f"{frame.name}: the clock jumps by {jump_s:+.1f} s: it was set, or recording paused{effect}")
        yield frame


@contextmanager
def with_progress(frames: "Sequence[SequenceFrame]", description: str) -> "Iterator[Iterator[SequenceFrame]]":
    """Yield an iterator over the frames that advances a progress bar."""
    with progress_bar(len(frames), description, "image") as bar:
        yield _each(frames, bar.update)


def _each(frames: "Sequence[SequenceFrame]", progress: "Progress") -> "Iterator[SequenceFrame]":
    for frame in frames:
        yield frame
        progress(1)


def _timed(folder: Path, names: Sequence[str], times: Path) -> "tuple[ImageRecord, ...]":
    from vpr_dhe.geography.position_table import read_positions
    from vpr_dhe.records import ImageRecord

    placed = read_positions(times).apply(map(ImageRecord, names), folder).records
    if all(record.timestamp_s is None for record in placed):
        raise BadInputError(
            f"{times} gives no photo a time; expected a column timestamp, which frames of a video do not have: leave "
            "out --times to sort them by name"
        )
    return placed
