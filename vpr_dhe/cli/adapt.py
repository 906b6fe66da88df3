"""`vpr-dhe adapt`: adaptation of an index to its own map."""

import json
from pathlib import Path
from typing import Annotated

import typer

from vpr_dhe.cli.common import DocumentFormat, progress_stages, report_building
from vpr_dhe.runtime.choices import Adapt

NAME = "adapt"


def run(
    index: Annotated[Path, typer.Argument(help="Index made by `vpr-dhe index`.")],
    adapt: Annotated[
        Adapt, typer.Option(help="auto keeps what helps on held-out places; off searches vectors as extracted again.")
    ] = "auto",
    format: Annotated[DocumentFormat, typer.Option(help="Output format.")] = DocumentFormat.table,
) -> None:
    """Teach an index its own map: center and whiten its vectors and correct hubs, as far as that helps."""
    from vpr_dhe.localization.map_adaptation import adapt_index
    from vpr_dhe.report.tables.adaptation import adaptation_document, adaptation_lines

    with progress_stages() as start_progress:
        report = adapt_index(index, adapt=adapt, start_progress=start_progress, announce=report_building)
    if format is DocumentFormat.json:
        print(json.dumps(adaptation_document(report)))
    elif report is None:
        print(f"{index}: vectors are searched as extracted")
    else:
        print("\n".join(adaptation_lines(report)))
