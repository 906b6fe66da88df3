"""`vpr-dhe adapt`: adaptation of an index to its own map."""

import json
from pathlib import Path
from typing import Annotated

import typer

from vpr_dhe.cli.shared.callbacks import writable_file
from vpr_dhe.cli.shared.help import OUTPUT
from vpr_dhe.cli.shared.options import FormatOption, IndexArgument, OutOption
from vpr_dhe.cli.shared.progress import DocumentFormat, chosen_format, print_result, progress_stages, report_building
from vpr_dhe.runtime.choices import AUTO, Adapt

NAME = "adapt"
EXAMPLES = """
vpr-dhe adapt my-index --picture examples.png
vpr-dhe adapt my-index --adapt off
"""


def run(
    index: IndexArgument,
    adapt: Annotated[
        Adapt, typer.Option(help="auto keeps what helps on held-out places; off searches vectors as extracted again.")
    ] = AUTO,
    picture: Annotated[
        Path | None,
        typer.Option(
            rich_help_panel=OUTPUT,
            help="Draw the largest hub and an answer that the adaptation corrects here.",
            callback=writable_file,
        ),
    ] = None,
    format: FormatOption = None,
    out: OutOption = None,
) -> None:
    """Fit centring, whitening and hub correction to the map of an index; keep steps that improve held-out recall."""
    from vpr_dhe.index.map_adaptation import adapt_index
    from vpr_dhe.index.place_index import PlaceIndex
    from vpr_dhe.report.tables.adaptation import adaptation_document, adaptation_lines

    format = chosen_format(format, out, DocumentFormat.table)
    place_index = PlaceIndex.open(index)
    with progress_stages() as start_progress:
        report = adapt_index(place_index, adapt=adapt, start_progress=start_progress, announce=report_building)
    if format is DocumentFormat.json:
        print_result(json.dumps(adaptation_document(report)), out)
    elif report is None:
        print_result(f"{index}: vectors are searched as extracted", out)
    else:
        print_result("\n".join(adaptation_lines(report)), out)
    if picture:
        from vpr_dhe.report.pictures.adaptation import draw_examples
        from vpr_dhe.report.pictures.drawing import write_picture

        write_picture(draw_examples(place_index), picture)
