"""`vpr-dhe check`: verification of an index against its checksums."""

import json
from typing import Annotated

import typer

from vpr_dhe.cli.shared.options import FormatOption, IndexArgument, OutOption
from vpr_dhe.cli.shared.progress import DocumentFormat, chosen_format, print_result, print_stderr

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
    from vpr_dhe.report.tables.check import check_document, check_lines

    format = chosen_format(format, out, DocumentFormat.table)
    report = check(index)
    if format is DocumentFormat.json:
        print_result(json.dumps(check_document(report)), out)
    else:
        print_result("\n".join(check_lines(report, index)), out)
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
