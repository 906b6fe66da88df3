"""`vpr-dhe query`: where were these photos taken?"""

from collections.abc import Iterable, Iterator
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NamedTuple

import typer

from vpr_dhe.cli.common import (
    progress_bar,
    require_writable,
    say_calibration,
    say_skipped,
    sink_of,
)
from vpr_dhe.cli.options import IndexModelOptions, VerifierOptions
from vpr_dhe.cli.photos import TimesOption, counted, photo_frames
from vpr_dhe.cli.recordings import RecordingOptions
from vpr_dhe.errors import BadInputError

if TYPE_CHECKING:
    from typing import TextIO

    from vpr_dhe.localization.localizer import Localizer
    from vpr_dhe.report.tables.answers import Answer, AnswerSheet, LineFormat
    from vpr_dhe.sequences.frames import SequenceFrame

NAME = "query"


class Format(StrEnum):
    """Output formats."""

    table = "table"
    json = "json"
    jsonl = "jsonl"
    csv = "csv"
    hloc = "hloc"


def run(
    index: Annotated[Path, typer.Argument(help="Index made by `vpr-dhe index`.")],
    recording: RecordingOptions,
    verification: VerifierOptions,
    model: IndexModelOptions,
    queries: Annotated[
        list[Path] | None, typer.Argument(metavar="IMAGE_OR_FOLDER...", help="Photos, or folders of photos.")
    ] = None,
    times: TimesOption = None,
    top_k: Annotated[int, typer.Option(min=1, help="Answers per query.")] = 5,
    min_probability: Annotated[
        float | None,
        typer.Option(
            min=0, max=1, help="Call the place unknown where the best match is less likely right; see calibrate."
        ),
    ] = None,
    format: Annotated[Format, typer.Option(help="Output format.")] = Format.table,
    out: Annotated[Path | None, typer.Option(help="Write the results here instead of stdout.")] = None,
    report: Annotated[Path | None, typer.Option(help="Write an HTML page with the matches here, too.")] = None,
    sequence: Annotated[bool, typer.Option("--sequence", help="They are frames of one way, in order.")] = False,
    max_step_m: Annotated[
        float | None, typer.Option(help="Frames of a sequence lie at most so far apart, by positions of the index.")
    ] = None,
    max_speed_m_s: Annotated[
        float | None, typer.Option(help="The camera moves at most so fast, by times and positions of the index.")
    ] = None,
) -> None:
    """Find the places that photos show, or the frames of a recording."""
    from vpr_dhe.localization.localizer import Localizer
    from vpr_dhe.report.tables.answers import LINE_FORMATS, SHEET_FORMATS, AnswerSheet

    require_writable(out)
    require_writable(report)
    recording.require_alone("photos or folders of photos", given=bool(queries), times=times)
    if recording.given and report:
        raise BadInputError(
            "--report shows image files, and a recording is none; extract it with `vpr-dhe frames`, and ask the folder"
        )
    photos = photo_frames(queries or [], times, in_order=sequence)
    moves = max_step_m is not None or max_speed_m_s is not None
    _require_consistent(sequence, moves, min_probability, format, report)
    verification.say_if_slow()
    localizer = Localizer.open(
        index,
        verifier=verification.verifier,
        rerank=verification.rerank,
        weights=verification.weights or (),
        model=model.model,
        **model.loading(),
    )
    if min_probability is not None:
        localizer.require_calibration()
    say_calibration(localizer)
    by_line = LINE_FORMATS.get(format)
    opened = recording.frames("querying") if recording.given else counted(photos, "querying")
    with opened as frames, sink_of(out) as sink:
        if sequence:
            found = _in_sequence(localizer, frames, top_k, max_step_m, max_speed_m_s)
        else:
            found = _each(localizer, frames, top_k, min_probability)
        # A recording may have any number of frames, so of what is written already nothing is kept.
        told = _tell(found, by_line, sink, keep=report is not None or by_line is None)
        sheet = AnswerSheet(str(index), localizer.database.spec.model, verification.verifier, tuple(told.kept))
        if by_line is None:
            print(SHEET_FORMATS[format](sheet), file=sink)
    if report:
        _write_report(sheet, localizer, report)
    if not told.readable:
        raise BadInputError(f"none of the {told.asked} queries could be read")


class _Told(NamedTuple):
    """How many queries there were and could be read, and the answers that are still needed."""

    asked: int
    readable: int
    kept: "list[Answer]"


def _tell(found: "Iterator[Answer]", by_line: "LineFormat | None", sink: "TextIO", *, keep: bool) -> _Told:
    """Write each answer as it comes, where the format can, and say which queries could not be read."""
    asked, readable, kept = 0, 0, []
    if by_line and by_line.header:
        print(by_line.header, file=sink)
    for answer in found:
        asked, readable = asked + 1, readable + (answer.error is None)
        if answer.error:
            say_skipped(answer.query, answer.error)
        for line in by_line.lines(answer) if by_line else ():
            print(line, file=sink, flush=True)
        if keep:
            kept.append(answer)
    return _Told(asked, readable, kept)


def _require_consistent(
    sequence: bool, moves: bool, min_probability: float | None, format: Format, report: Path | None
) -> None:
    """Refuse options that say nothing of each other."""
    if moves and not sequence:
        raise BadInputError(
            "--max-step-m and --max-speed-m-s are about frames of a sequence; add --sequence, or leave them out"
        )
    if min_probability is not None and sequence:
        raise BadInputError(
            "--min-probability judges each photo by itself, and with --sequence a belief does; leave one of them out"
        )
    if sequence and (report or format in (Format.csv, Format.hloc)):
        raise BadInputError("a belief over a sequence is told by --format table, json and jsonl alone; use one of them")


def _write_report(sheet: "AnswerSheet", localizer: "Localizer", report: Path) -> None:
    from vpr_dhe.localization.database import VerifiedIndex
    from vpr_dhe.report.html.match_report import MAX_QUERIES, write_report
    from vpr_dhe.report.html.query_report import query_report

    database = localizer.database
    assert isinstance(database, VerifiedIndex), "opened by Localizer.open"
    with progress_bar(min(MAX_QUERIES, len(sheet.answers)), "report", "query") as bar:
        write_report(query_report(sheet, database.index, bar.update), report)


def _each(
    localizer: "Localizer", frames: "Iterable[SequenceFrame]", top_k: int, min_probability: float | None
) -> "Iterator[Answer]":
    from vpr_dhe.errors import ImageError
    from vpr_dhe.report.tables.answers import Answer

    for frame in frames:
        found, reason = None, None
        try:
            found = localizer.localize(frame.read(), top_k=top_k, min_probability=min_probability)
        except ImageError as error:
            reason = str(error)
        yield Answer(frame.name or "", found, reason, timestamp_s=frame.timestamp_s)


def _in_sequence(
    localizer: "Localizer",
    frames: "Iterable[SequenceFrame]",
    top_k: int,
    max_step_m: float | None,
    max_speed_m_s: float | None,
) -> "Iterator[Answer]":
    from vpr_dhe.report.tables.answers import Answer
    from vpr_dhe.sequences.motion import PositionMotion
    from vpr_dhe.sequences.sequence_localizer import SequenceLocalizer

    sequence = SequenceLocalizer(localizer)
    places = sequence.place_map()
    motion = None
    if max_step_m is not None or max_speed_m_s is not None:
        motion = PositionMotion(places, max_step_m=max_step_m, max_speed_m_s=max_speed_m_s)
    for frame in sequence.stream(frames, tracker=sequence.tracker(places, motion), top_k=top_k):
        yield Answer(frame.name or "", frame.localization, frame.error, frame.belief, frame.timestamp_s)
