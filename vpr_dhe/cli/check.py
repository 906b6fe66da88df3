"""`vpr-dhe check`: is everything that an index stores still what was written?"""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from vpr_dhe.cli.common import DocumentFormat

NAME = "check"


def run(
    index: Annotated[Path, typer.Argument(help="Index made by `vpr-dhe index`.")],
    format: Annotated[DocumentFormat, typer.Option(help="Output format.")] = DocumentFormat.table,
) -> None:
    """Compare every stored file of an index with its checksum; exit with 1 if any is damaged."""
    from vpr_dhe.errors import IndexDamagedError
    from vpr_dhe.index.place_index import check

    report = check(index)
    if format is DocumentFormat.json:
        print(json.dumps(asdict(report)))
    else:
        print(
            f"{index}: {report.images} images in {report.segments} segments, {report.skipped} skipped, {report.model}"
        )
    if report.damaged:
        raise IndexDamagedError(f"damaged: {', '.join(report.damaged)}; index these images again")
