"""`vpr-dhe query`: places of photos, or of the frames of a recording."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
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
    print_result,
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
    from vpr_dhe.report.tables.answers import Answer, AnswerSheet
    from vpr_dhe.report.tables.line_format import LineFormat
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


@dataclass(frozen=True)
class PhotoOptions:
    """Photos to localize, and their times."""

    queries: Annotated[
        list[Path] | None,
        typer.Argument(metavar="IMAGE_OR_FOLDER...", help="Photos or folders of photos.", callback=existing_photos),
    ] = None
    times: TimesOption = None


@dataclass(frozen=True)
class AnswerOptions:
    """Number of matches, and limits of an answer."""

    top_k: Annotated[int, typer.Option(min=1, help="Number of matches per query.")] = 5
    min_probability: Annotated[
        float | None,
        typer.Option(min=0, max=1, help="Minimum probability of a known place; best after `vpr-dhe calibrate`."),
    ] = None
    max_megapixels: MaxMegapixelsOption = DEFAULT_MEGAPIXELS


@dataclass(frozen=True)
class OutputOptions:
    """Files that answers are written to, and their format."""

    TITLE = OUTPUT

    format: Annotated[
        Format | None, typer.Option(help="Output format. [default: from the extension of --out, else table]")
    ] = None
    names_relative_to: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER",
            help="Folder of all images, which names in hloc pairs are relative to, as COLMAP needs them.",
        ),
    ] = None
    out: Annotated[
        Path | None,
        typer.Option(
            help="Write the results here instead of stdout; the ending sets the format: .json, .jsonl, .csv, "
            ".geojson, .gpx or .tum.",
            callback=writable_file,
        ),
    ] = None
    report: Annotated[
        Path | None, typer.Option(help="Also write an HTML report with the matches here.", callback=writable_file)
    ] = None
    rerun: RerunOption = None

    @property
    def chosen_format(self) -> Format:
        """Format by `format`, or by the ending of `out`.

        Raises:
            BadInputError: if the ending is that of a picture or page.
        """
        return chosen_format(self.format, self.out, Format.table)

    def line_format(self, localizer: "Localizer", queries: Sequence["SequenceFrame"]) -> "LineFormat | None":
        """Format, if it is by lines; with a root, its names are relative to that folder.

        Raises:
            BadInputError: if the indexed images or a query are not in the root.
        """
        from vpr_dhe.report.tables.answer_formats import LINE_FORMATS
        from vpr_dhe.report.tables.pair_lists import rooted_pair_format

        if self.names_relative_to is None:
            return LINE_FORMATS.get(self.chosen_format)
        folders = localizer.index.manifest.folders
        return rooted_pair_format(self.names_relative_to, folders, [frame.name or "" for frame in queries])


@dataclass(frozen=True)
class TraverseOptions:
    """Treatment of the frames as one traverse, and limits of the motion along it."""

    TITLE = "Sequence"

    sequence: Annotated[
        bool, typer.Option("--sequence", help="Treat the images as consecutive frames of one traverse.")
    ] = False
    max_step_m: Annotated[
        float | None,
        typer.Option(help="Maximum distance in metres between frames of the traverse, by positions of the index."),
    ] = None
    max_speed_m_s: Annotated[
        float | None,
        typer.Option(help="Maximum speed of the camera in m/s, by times of frames and positions of the index."),
    ] = None


def run(
    index: IndexArgument,
    photos: PhotoOptions,
    limits: AnswerOptions,
    recording: RecordingOptions,
    verification: RankingOptions,
    model: IndexModelOptions,
    rough: NearOptions,
    output: OutputOptions,
    traverse: TraverseOptions,
) -> None:
    """Find the places of photos, or of the frames of a recording."""
    format = output.chosen_format
    recording.require_alone("photos or folders of photos", given=bool(photos.queries), times=photos.times)
    _require_consistent(traverse, limits, output, recorded=recording.given is not None)
    rough.require_consistent(sequence=traverse.sequence)
    existing_file(photos.times)
    from vpr_dhe.report.tables.answers import AnswerSheet
    from vpr_dhe.report.tables.positions import require_positions
    from vpr_dhe.sequences.sequence_localizer import require_all_verified

    if traverse.sequence:
        require_all_verified(verification.stop_early)
    listed = photo_frames(photos.queries or [], photos.times, in_order=traverse.sequence)
    localizer = open_localizer(index, verification, model, max_megapixels=limits.max_megapixels)
    by_line = output.line_format(localizer, listed)
    if limits.min_probability is not None:
        localizer.require_calibration()
        note_default_calibration(localizer)
    warn_of_calibration(localizer)
    require_positions(localizer.index, format, timed=bool(recording.given or photos.times))
    near = rough.circle(localizer)
    opened = recording.frames("querying") if recording.given else with_progress(listed, "querying")
    watching = watched_answers(output.rerun, localizer, sequence=traverse.sequence)
    # A document is written when it is complete: an interruption leaves an earlier one as it is.
    lines = open_output(output.out if by_line else None)
    with opened as frames, lines as file, watching as watched:
        answers = watched.results(_answers(localizer, watched.frames(frames), traverse, limits, near))
        summary = _write_answers(answers, by_line, file, keep=output.report is not None)
    sheet = AnswerSheet.of(localizer, verification.verifier, summary.answers, unix_times=recording.has_unix_times)
    _write_sheet(sheet, format, output.out)
    report_left_out(summary.left_out, written=summary.lines > 0)
    if output.report:
        _write_report(sheet, localizer, output.report)
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
    traverse: TraverseOptions, limits: AnswerOptions, output: OutputOptions, *, recorded: bool
) -> None:
    """Raise BadInputError for options that exclude each other."""
    sequence, limits_motion = traverse.sequence, traverse.max_step_m is not None or traverse.max_speed_m_s is not None
    if recorded and output.report:
        raise BadInputError(
            "--report shows image files, and a recording has none; extract frames with `vpr-dhe frames` and query them"
        )
    if limits_motion and not sequence:
        raise BadInputError(
            "--max-step-m and --max-speed-m-s limit the motion of a sequence; add --sequence, or leave them out"
        )
    if limits.min_probability is not None and sequence:
        raise BadInputError(
            "--min-probability is for single photos, and --sequence gives a belief instead; leave one of them out"
        )
    if sequence and (output.report or output.chosen_format in _WITHOUT_BELIEF):
        raise BadInputError(
            "only --format table, json and jsonl hold the belief of --sequence, and geojson, gpx and tum its "
            "positions; use one of them, without --report"
        )
    if recorded and output.names_relative_to is not None:
        raise BadInputError(
            "--names-relative-to is for image files, and frames of a recording are none; leave it out, or extract them "
            "with `vpr-dhe frames`"
        )
    if output.names_relative_to is not None and output.chosen_format is not Format.hloc:
        raise BadInputError("--names-relative-to is for pairs; add --format hloc, or leave it out")


def _answers(
    localizer: "Localizer",
    frames: "Iterable[SequenceFrame]",
    traverse: TraverseOptions,
    limits: AnswerOptions,
    near: "Near | None",
) -> "Iterator[Answer]":
    from vpr_dhe.report.tables.answers import Answer
    from vpr_dhe.sequences.localize_frames import follow_frames, localize_frames

    if traverse.sequence:
        localized = follow_frames(
            localizer,
            naming_jumps(frames),
            top_k=limits.top_k,
            max_step_m=traverse.max_step_m,
            max_speed_m_s=traverse.max_speed_m_s,
        )
    else:
        localized = localize_frames(
            localizer, frames, top_k=limits.top_k, min_probability=limits.min_probability, near=near
        )
    return map(Answer.of, localized)


def _write_sheet(sheet: "AnswerSheet", format: Format, out: Path | None) -> None:
    """Write a document of all answers if the format is one, and one line on stderr about queries without a position."""
    from vpr_dhe.report.tables.answer_formats import SHEET_FORMATS
    from vpr_dhe.report.tables.positions import POSITION_FORMATS

    if format in SHEET_FORMATS:
        print_result(SHEET_FORMATS[format](sheet), out)
    if format in POSITION_FORMATS:
        positions = POSITION_FORMATS[format]
        print_result(positions.document(sheet), out)
        reasons = [reason for answer in sheet.answers if (reason := positions.lacks(answer))]
        if reasons:
            print_stderr(f"left out {len(reasons)} of {len(sheet.answers)} queries, such as one with {reasons[0]}")


def _write_report(sheet: "AnswerSheet", localizer: "Localizer", report: Path) -> None:
    from vpr_dhe.index.paths import moved_hint
    from vpr_dhe.report.html.match_report import MAX_QUERIES, write_report
    from vpr_dhe.report.html.query_report import query_report

    index = localizer.index
    for folder in index.manifest.folders.missing:
        print_stderr(
            f"{report} shows no indexed images, since they are no longer in {folder}; {moved_hint(index.folder)}"
        )
    with progress_bar(min(MAX_QUERIES, len(sheet.answers)), "report", "query") as bar:
        write_report(query_report(sheet, index, bar.update), report)
