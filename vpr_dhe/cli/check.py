"""`vpr-dhe check`: is everything that an index stores still what was written?"""

import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from vpr_dhe.cli.common import DocumentFormat

NAME = "check"


def run(
    index: Annotated[Path, typer.Argument(help="Index made by `vpr-dhe index`.")],
    repair: Annotated[
        bool, typer.Option("--repair", help="Drop what is damaged, so that it can be made again.")
    ] = False,
    format: Annotated[DocumentFormat, typer.Option(help="Output format.")] = DocumentFormat.table,
) -> None:
    """Compare every stored file of an index with its checksum; exit with 1 if any is damaged."""
    from vpr_dhe.errors import IndexDamagedError
    from vpr_dhe.index.checking import check
    from vpr_dhe.index.checking import repair as drop_damaged
    from vpr_dhe.index.snapshot import CALIBRATIONS

    report = check(index)
    if format is DocumentFormat.json:
        print(json.dumps(asdict(report)))
    else:
        print(
            f"{index}: {report.images} images in {report.segments} segments, {report.skipped} skipped, {report.model}"
        )
    calibrations = [name for name in report.damaged if name.startswith(CALIBRATIONS)]
    others = len(report.damaged) > len(calibrations)
    if report.damaged and repair:
        lost = drop_damaged(index)
        if others:
            print(f"dropped {lost} images; run `vpr-dhe index` on their folder to extract them again", file=sys.stderr)
        if calibrations:
            print(f"dropped {', '.join(calibrations)}; run `vpr-dhe calibrate` to make it again", file=sys.stderr)
    elif report.damaged:
        makers = ["index"] * others + ["calibrate"] * bool(calibrations)
        raise IndexDamagedError(
            f"damaged: {', '.join(report.damaged)}; `vpr-dhe check {index} --repair` drops what is damaged, then run "
            f"{' and '.join(f'`vpr-dhe {maker}`' for maker in makers)} to make it again"
        )
