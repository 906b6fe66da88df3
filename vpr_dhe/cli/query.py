"""`vpr-dhe query`: places of photos, or of the frames of a recording."""

from collections.abc import Iterable, Iterator, Sequence
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NamedTuple

import typer

from vpr_dhe.cli.shared.callbacks import existing_file, existing_photos, writable_file
from vpr_dhe.cli.shared.help import OUTPUT
from vpr_dhe.cli.shared.near import NearOptions
from vpr_dhe.cli.shared.options import (
    DEFAULT_MEGAPIXELS,
    IndexArgument,
    IndexModelOptions,
    MaxMegapixelsOption,
    RankingOptions,
    open_localizer,
)
from vpr_dhe.cli.shared.progress import (
    chosen_format,
    note_default_calibration,
    open_output,
    print_stderr,
    progress_bar,
    report_blank,
    report_left_out,
    report_skipped,
    warn_of_calibration,
)
from vpr_dhe.cli.shared.queries import TimesOption, naming_jumps, photo_frames, with_progress
from vpr_dhe.cli.shared.recordings import RecordingOptions
from vpr_dhe.cli.shared.rerun import RerunOption, watched_answers
from vpr_dhe.errors import BadInputError

if TYPE_CHECKING:
    from typing import TextIO

    from vpr_dhe.localization.localizer import Localizer
    from vpr_dhe.records import Near
    from vpr_dhe.report.tables.answers import Answer, AnswerSheet, LineFormat
    from vpr_dhe.report.tables.positions import PositionFormat
    from vpr_dhe.sequences.frames import SequenceFrame

NAME = "query"
EXAMPLES = """
vpr-dhe query my-index where-is-this.jpg
vpr-dhe query my-index queries --out answers.json --report answers.html
vpr-dhe query my-index queries --min-probability 0.9
vpr-dhe query my-index photo.jpg --near 49.234,7.002 --within-m 200
vpr-dhe query my-index --video drive.mp4 --min-seconds 1 --sequence
vpr-dhe query my-index queries --out answers.geojson
vpr-dhe query my-index --bag drive.bag --topic /camera/image_raw --sequence --rerun drive.rrd
"""
_SEQUENCE = "Sequence"


class Format(StrEnum):
    """Output formats."""

    table = "table"
    json = "json"
    jsonl = "jsonl"
    csv = "csv"
    hloc = "hloc"
    geojson = "geojson"
    gpx = "gpx"
    tum = "tum"


_WITHOUT_BELIEF = (Format.csv, Format.hloc)


def run(
    index: IndexArgument,
    recording: RecordingOptions,
    verification: RankingOptions,
    model: IndexModelOptions,
    rough: NearOptions,
    queries: Annotated[
        list[Path] | None,
        typer.Argument(metavar="IMAGE_OR_FOLDER...", help="Photos or folders of photos.", callback=existing_photos),
    ] = None,
    times: TimesOption = None,
    top_k: Annotated[int, typer.Option(min=1, help="Number of matches per query.")] = 5,
    min_probability: Annotated[
        float | None,
        typer.Option(min=0, max=1, help="Minimum probability of a known place; best after `vpr-dhe calibrate`."),
    ] = None,
    max_megapixels: MaxMegapixelsOption = DEFAULT_MEGAPIXELS,
    format: Annotated[
        Format | None, typer.Option(rich_help_panel=OUTPUT, help="Output format. [that of OUT's ending, or table]")
    ] = None,
    names_relative_to: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER",
            rich_help_panel=OUTPUT,
            help="Folder of all images, which names in hloc pairs are relative to, as COLMAP needs them.",
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            rich_help_panel=OUTPUT,
            help="Write the results here instead of stdout; the ending sets the format: .json, .jsonl, .csv, "
            ".geojson, .gpx or .tum.",
            callback=writable_file,
        ),
    ] = None,
    report: Annotated[
        Path | None,
        typer.Option(
            rich_help_panel=OUTPUT, help="Also write an HTML report with the matches here.", callback=writable_file
        ),
    ] = None,
    rerun: RerunOption = None,
    sequence: Annotated[
        bool,
        typer.Option(
            "--sequence", rich_help_panel=_SEQUENCE, help="Treat the images as consecutive frames of one traverse."
        ),
    ] = False,
    max_step_m: Annotated[
        float | None,
        typer.Option(
            rich_help_panel=_SEQUENCE,
            help="Maximum distance in metres between frames of the traverse, by positions of the index.",
        ),
    ] = None,
    max_speed_m_s: Annotated[
        float | None,
        typer.Option(
            rich_help_panel=_SEQUENCE,
            help="Maximum speed of the camera in m/s, by times of frames and positions of the index.",
        ),
    ] = None,
) -> None:
    """Find the places of photos, or of the frames of a recording."""
    format = chosen_format(format, out, Format.table)
    recording.require_alone("photos or folders of photos", given=bool(queries), times=times)
    limits_motion = max_step_m is not None or max_speed_m_s is not None
    _require_consistent(sequence, limits_motion, min_probability, format, report, recorded=bool(recording.given))
    rough.require_consistent(sequence=sequence)
    existing_file(times)
    from vpr_dhe.report.tables.answers import SHEET_FORMATS, AnswerSheet
    from vpr_dhe.report.tables.positions import POSITION_FORMATS

    if sequence:
        from vpr_dhe.sequences.sequence_localizer import require_all_verified

        require_all_verified(verification.stop_early)
    photos = photo_frames(queries or [], times, in_order=sequence)
    by_line = _line_format(format, names_relative_to, index, [frame.name or "" for frame in photos])
    localizer = open_localizer(index, verification, model, max_megapixels=max_megapixels)
    if min_probability is not None:
        localizer.require_calibration()
        note_default_calibration(localizer)
    warn_of_calibration(localizer)
    _require_positions(localizer, format, timed=bool(recording.given or times))
    near = rough.circle(localizer)
    opened = recording.frames("querying") if recording.given else with_progress(photos, "querying")
    watching = watched_answers(rerun, localizer, sequence=sequence)
    with opened as frames, open_output(out) as output, watching as watched:
        passing = watched.frames(frames)
        if sequence:
            answers = _localize_sequence(localizer, naming_jumps(passing), top_k, max_step_m, max_speed_m_s)
        else:
            answers = _localize_each(localizer, passing, top_k, min_probability, near)
        summary = _write_answers(watched.results(answers), by_line, output, keep=report is not None)
        sheet = AnswerSheet(
            str(index),
            localizer.database.spec.model,
            verification.verifier,
            tuple(summary.answers),
            localizer.rank_by,
            localizer.adaptation,
            localizer.calibration_source,
        )
        if format in SHEET_FORMATS:
            print(SHEET_FORMATS[format](sheet), file=output)
        if format in POSITION_FORMATS:
            _write_positions(POSITION_FORMATS[format], sheet, output)
    report_left_out(summary.left_out, written=summary.lines > 0)
    if report:
        _write_report(sheet, localizer, report)
    if not summary.readable:
        raise BadInputError(f"none of the {summary.queries} queries could be read")


class _Summary(NamedTuple):
    """Number of queries, number of readable ones, and the answers that are still needed.

    Formats by lines also count them, and list the names that kept further lines out.
    """

    queries: int
    readable: int
    answers: "list[Answer]"
    lines: int
    left_out: list[str]


def _line_format(format: Format, root: Path | None, index: Path, queries: Sequence[str]) -> "LineFormat | None":
    """Return the format if it is by lines; with a root, its names are relative to that folder.

    Raises:
        BadInputError: if the format is another, or the indexed images or a query are not in the root.
    """
    from vpr_dhe.report.tables.answers import LINE_FORMATS, pair_format

    if root is None:
        return LINE_FORMATS.get(format)
    if format is not Format.hloc:
        raise BadInputError("--names-relative-to is for pairs; add --format hloc, or leave it out")
    from vpr_dhe.index.manifest import read_manifest

    folders = read_manifest(index).folders
    for folder in folders.all:
        below(root, Path(folder))
    for query in queries:
        below(root, Path(query))
    return pair_format(lambda query: below(root, Path(query)), lambda image: below(root, folders.locate(image)))


def below(root: Path, path: Path) -> str:
    """Path relative to a folder; links to folders are followed.

    Raises:
        BadInputError: if it is not inside.
    """
    folder = root.resolve()
    # A file may itself be a link to elsewhere.
    for place in (path.parent.resolve() / path.name, path.resolve()):
        if place.is_relative_to(folder):
            return place.relative_to(folder).as_posix()
    raise BadInputError(f"{path} is not in {root}; give by --names-relative-to a folder that holds all images")


def _write_answers(
    answers: "Iterable[Answer]", by_line: "LineFormat | None", output: "TextIO", *, keep: bool
) -> _Summary:
    """Write each answer as soon as it is there in line formats, and report unreadable queries.

    Answers are kept for a report and for other formats only, because a recording may have any number of frames.
    """
    queries, readable, written = 0, 0, 0
    kept: list[Answer] = []
    left_out: list[str] = []
    if by_line and by_line.header:
        print(by_line.header, file=output)
    for answer in answers:
        queries, readable = queries + 1, readable + (answer.error is None)
        if answer.error:
            report_skipped(answer.query, answer.error)
        elif answer.localization is not None and answer.localization.blank:
            report_blank(answer.query)
        for line in by_line.lines(answer) if by_line else ():
            print(line, file=output, flush=True)
            written += 1
        left_out += by_line.left_out(answer) if by_line else ()
        if keep or by_line is None:
            kept.append(answer)
    return _Summary(queries, readable, kept, written, left_out)


def _require_consistent(
    sequence: bool,
    limits_motion: bool,
    min_probability: float | None,
    format: Format,
    report: Path | None,
    *,
    recorded: bool,
) -> None:
    """Raise BadInputError for options that exclude each other."""
    if recorded and report:
        raise BadInputError(
            "--report shows image files, and a recording has none; extract frames with `vpr-dhe frames` and query them"
        )
    if limits_motion and not sequence:
        raise BadInputError(
            "--max-step-m and --max-speed-m-s limit the motion of a sequence; add --sequence, or leave them out"
        )
    if min_probability is not None and sequence:
        raise BadInputError(
            "--min-probability is for single photos, and --sequence gives a belief instead; leave one of them out"
        )
    if sequence and (report or format in _WITHOUT_BELIEF):
        raise BadInputError(
            "only --format table, json and jsonl hold the belief of --sequence, and geojson, gpx and tum its "
            "positions; use one of them, without --report"
        )


def _require_positions(localizer: "Localizer", format: Format, *, timed: bool) -> None:
    """Raise BadInputError unless the index has the positions, and queries the times, that a format needs."""
    from vpr_dhe.geography.distance import EARTH
    from vpr_dhe.localization.database import VerifiedIndex
    from vpr_dhe.records import RECONSTRUCTION

    if format not in (Format.geojson, Format.gpx, Format.tum):
        return
    assert isinstance(localizer.database, VerifiedIndex), "opened by Localizer.open"
    index = localizer.database.index
    worlds = index.snapshot.worlds - {RECONSTRUCTION}
    if format is Format.tum:
        if not timed:
            raise BadInputError("--format tum needs times; give those of a folder by --times, or use --format csv")
        if not worlds:
            raise BadInputError(
                f"no image of {index.folder} has a position in metres or degrees; use --format csv, or index the "
                "images with --positions"
            )
    elif EARTH not in worlds:
        raise BadInputError(
            f"--format {format} needs positions in degrees or UTM, and {index.folder} has none; use --format csv"
        )


def _write_positions(positions: "PositionFormat", sheet: "AnswerSheet", output: "TextIO") -> None:
    """Write the positions of all queries, and one line on stderr about queries that are left out."""
    print(positions.document(sheet), file=output)
    reasons = [reason for answer in sheet.answers if (reason := positions.lacks(answer))]
    if reasons:
        print_stderr(f"left out {len(reasons)} of {len(sheet.answers)} queries, such as one with {reasons[0]}")


def _write_report(sheet: "AnswerSheet", localizer: "Localizer", report: Path) -> None:
    from vpr_dhe.index.paths import moved_hint
    from vpr_dhe.localization.database import VerifiedIndex
    from vpr_dhe.report.html.match_report import MAX_QUERIES, write_report
    from vpr_dhe.report.html.query_report import query_report

    database = localizer.database
    assert isinstance(database, VerifiedIndex), "opened by Localizer.open"
    for folder in database.index.manifest.folders.missing:
        print_stderr(
            f"{report} shows no indexed images, since they are no longer in {folder}; "
            f"{moved_hint(database.index.folder)}"
        )
    with progress_bar(min(MAX_QUERIES, len(sheet.answers)), "report", "query") as bar:
        write_report(query_report(sheet, database.index, bar.update), report)


def _localize_each(
    localizer: "Localizer",
    frames: "Iterable[SequenceFrame]",
    top_k: int,
    min_probability: float | None,
    near: "Near | None",
) -> "Iterator[Answer]":
    from vpr_dhe.errors import ImageError
    from vpr_dhe.report.tables.answers import Answer

    for frame in frames:
        localization, reason = None, None
        try:
            localization = localizer.localize(frame.read(), top_k=top_k, min_probability=min_probability, near=near)
        except ImageError as error:
            reason = str(error)
        yield Answer(frame.name or "", localization, reason, timestamp_s=frame.timestamp_s)


def _localize_sequence(
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
