"""`vpr-dhe models`: the known models, or facts about one."""

from typing import Annotated

import typer

from vpr_dhe.cli.shared.callbacks import known_model_or_network
from vpr_dhe.cli.shared.options import complete_model

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
            callback=known_model_or_network,
            autocompletion=complete_model,
        ),
    ] = None,
) -> None:
    """List the models with their licences and sources, or show one."""
    from vpr_dhe.models.published import PUBLISHED_NETWORKS
    from vpr_dhe.report.tables.models import (
        model_lines,
        network_lines,
        networks_table,
        published_table,
        table_of_kinds,
    )

    if model is not None:
        network = PUBLISHED_NETWORKS.get(model)
        print("\n".join(model_lines(model) if network is None else network_lines(network)))
        return
    print(table_of_kinds())
    print("\nPublished models, fetched once by --model NAME, where N stands for the dimensions:\n")
    print(published_table())
    print("\nPublished networks that align images, for --weights; `vpr-dhe models NETWORK` says how to get one:\n")
    print(networks_table())
