"""`vpr-dhe models`: the known models, or facts about one."""

from typing import Annotated

import typer

from vpr_dhe.cli.checks import known_model
from vpr_dhe.cli.options import complete_model

NAME = "models"
EXAMPLES = """
vpr-dhe models
vpr-dhe models lite-vlad
vpr-dhe models my-model.safetensors
"""


def run(
    model: Annotated[
        str | None,
        typer.Argument(
            help="Model name or file to show: architecture, licence, training data and origin. [list all models]",
            show_default=False,
            callback=known_model,
            autocompletion=complete_model,
        ),
    ] = None,
) -> None:
    """List the models with their licences and sources, or show one."""
    from vpr_dhe.report.tables.models import model_lines, published_table, table_of_kinds

    if model is not None:
        print("\n".join(model_lines(model)))
        return
    print(table_of_kinds())
    print("\nPublished models, fetched once by --model NAME, where N stands for the dimensions:\n")
    print(published_table())
