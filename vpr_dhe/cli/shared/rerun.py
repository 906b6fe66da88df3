"""Recordings for the viewer Rerun: the option, and what passes through a run into one."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Generic, NamedTuple, TypeAlias, TypeVar

import typer

from vpr_dhe.cli.shared.callbacks import writable_file
from vpr_dhe.cli.shared.help import OUTPUT

if TYPE_CHECKING:
    from vpr_dhe.localization.localizer import Localizer
    from vpr_dhe.records import ImageRecord
    from vpr_dhe.report.tables.answers import Answer
    from vpr_dhe.sequences.frames import SequenceFrame
    from vpr_dhe.sequences.loops import Loop

Result = TypeVar("Result")


def _recordable(path: Path | None) -> Path | None:
    """Return the path of a recording, if Rerun is installed and it can be written."""
    if path is not None:
        from vpr_dhe.runtime.extras import require_extra

        require_extra("rerun")
    return writable_file(path)


RerunOption: TypeAlias = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE.rrd",
        rich_help_panel=OUTPUT,
        help="Also record what happens, for the viewer Rerun: `rerun FILE.rrd`.",
        callback=_recordable,
    ),
]


class Watched(NamedTuple, Generic[Result]):
    """Functions that pass frames and results on, and record them where there is a recording."""

    frames: "Callable[[Iterable[SequenceFrame]], Iterable[SequenceFrame]]"
    results: Callable[[Iterable[Result]], Iterable[Result]]


@contextmanager
def watched_answers(path: Path | None, localizer: "Localizer", *, sequence: bool) -> "Iterator[Watched[Answer]]":
    """Watch queries, and record them if there is a path."""
    if path is None:
        yield Watched(lambda frames: frames, lambda answers: answers)
        return
    from vpr_dhe.report.rerun.answers import replay_of_answers

    with replay_of_answers(path, localizer.index, sequence=sequence) as replay:
        yield Watched(replay.tap_frames, replay.tap_answers)


@contextmanager
def watched_loops(path: Path | None, records: "Sequence[ImageRecord]") -> "Iterator[Watched[Loop]]":
    """Watch a drive and its loops, and record them if there is a path."""
    if path is None:
        yield Watched(lambda frames: frames, lambda loops: loops)
        return
    from vpr_dhe.report.rerun.loops import replay_of_loops

    with replay_of_loops(path, records) as replay:
        yield Watched(replay.tap_frames, replay.tap_loops)
