"""`vpr-dhe check`: verification of an index against its checksums."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vpr_dhe.cli.shared.options import FormatOption, IndexArgument, OutOption
from vpr_dhe.cli.shared.progress import DocumentFormat, chosen_format, print_result, print_stderr

if TYPE_CHECKING:
    from vpr_dhe.index.checking import CheckReport

NAME = "check"
EXAMPLES = """
vpr-dhe check my-index
vpr-dhe check my-index --repair
"""


def run(
    index: IndexArgument,
    repair: Annotated[
        bool, typer.Option("--repair", help="Drop damaged parts, so that they can be made again.")
    ] = False,
    format: FormatOption = None,
    out: OutOption = None,
) -> None:
    """Compare all files of an index with their checksums; exit with 1 if any is damaged."""
    from vpr_dhe.errors import IndexDamagedError
    from vpr_dhe.index.checking import check
    from vpr_dhe.index.checking import repair as drop_damaged
    from vpr_dhe.index.snapshot import CALIBRATIONS
    from vpr_dhe.report.tables.adaptation import adaptation_lines

    format = chosen_format(format, out, DocumentFormat.table)
    report = check(index)
    if format is DocumentFormat.json:
        print_result(json.dumps(_document(report)), out)
    else:
        lines = adaptation_lines(report.adaptation) if report.adaptation else []
        title = (
            f"{index}: {report.images} images in {report.segments} segments, {report.skipped} skipped, {report.model}"
        )
        folders = [f"images in {folder}" for folder in report.folders] if len(report.folders) > 1 else []
        lines = [title, *folders, *_codec_lines(report, index), *_grey_level_lines(report), *lines]
        print_result("\n".join(lines), out)
    calibrations = [name for name in report.damaged if name.startswith(CALIBRATIONS)]
    others = len(report.damaged) > len(calibrations)
    if report.damaged and repair:
        lost = drop_damaged(index)
        if others:
            print_stderr(f"dropped {lost} images; run `vpr-dhe index` on their folder to extract them again")
        if calibrations:
            print_stderr(f"dropped {', '.join(calibrations)}; run `vpr-dhe calibrate` to make it again")
    elif report.damaged:
        makers = ["index"] * others + ["calibrate"] * bool(calibrations)
        raise IndexDamagedError(
            f"damaged: {', '.join(report.damaged)}; run `vpr-dhe check {index} --repair` to drop it, then run "
            f"{' and '.join(f'`vpr-dhe {maker}`' for maker in makers)} to make it again"
        )


def _codec_lines(report: "CheckReport", index: Path) -> list[str]:
    """Line about the choice of the codec; none if the user chose it, or nothing was measured."""
    from vpr_dhe.report.tables.codec import codec_summary, outdated_codec_line

    if report.codec is None:
        return []
    if report.codec_is_outdated:
        return [outdated_codec_line(report.codec, index)]
    return [codec_summary(report.codec, report.codec.trials)] if report.codec.trials else []


def _grey_level_lines(report: "CheckReport") -> list[str]:
    """Line about the grey levels of 16-bit images; none where nothing is to be said."""
    if report.grey_levels:
        return [f"16-bit images: values from {report.grey_levels.low} to {report.grey_levels.high} become 8 bits"]
    if report.bit_depth is not None:
        return []
    return [
        "16-bit images: divided by 257, because the index is from before --bit-depth; if it holds images of fewer "
        "bits, index them again into a new folder"
    ]


def _document(report: "CheckReport") -> dict[str, Any]:
    """JSON object of a report; without `grey_levels` where no 16-bit image has been seen, or `folders` if it is one."""
    from vpr_dhe.report.tables.adaptation import adaptation_document
    from vpr_dhe.report.tables.codec import codec_document

    document = asdict(report) | {
        "adaptation": adaptation_document(report.adaptation),
        "codec": codec_document(report.codec, outdated=report.codec_is_outdated),
    }
    del document["codec_is_outdated"]
    bit_depth = document.pop("bit_depth")
    if bit_depth is not None and report.grey_levels is None:
        del document["grey_levels"]
    if len(report.folders) < 2:
        del document["folders"]
    return document
