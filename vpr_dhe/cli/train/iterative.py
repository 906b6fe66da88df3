"""`vpr-dhe train iterative`: registration network, with known homographies."""

from pathlib import Path
from typing import Annotated

import typer

from vpr_dhe.cli.train.registration_options import (
    AlignedDataOptions,
    RegistrationLoopOptions,
    RegistrationNetworkOptions,
)
from vpr_dhe.errors import BadInputError
from vpr_dhe.runtime.choices import RegistrationLayout

NAME = "iterative"
EXAMPLES = """
vpr-dhe train iterative pairs --out run
"""


def run(
    data: AlignedDataOptions,
    network: RegistrationNetworkOptions,
    loop: RegistrationLoopOptions,
    batch_size: Annotated[int, typer.Option(min=1, help="Pairs per step and process.")] = 16,
    learning_rate: Annotated[float, typer.Option(min=0, help="Peak learning rate of AdamW.")] = 4e-4,
    unpaired: Annotated[
        bool,
        typer.Option("--unpaired", help="Treat DATA as unpaired photos; pair each with itself in another contrast."),
    ] = False,
    pairs: Annotated[
        Path | None,
        typer.Option(help="With --unpaired: folder of aligned pairs to learn from too, as a tenth of all."),
    ] = None,
    matching_weight: Annotated[
        float,
        typer.Option(min=0, help="Weight of the loss of matching cells, so that features match by themselves."),
    ] = 0.0,
    labels: Annotated[
        bool,
        typer.Option(
            help="Learn from known homographies, or, as the baseline without labels, from differences of pixels."
        ),
    ] = True,
) -> None:
    """Train the network of the verifier iterative on aligned image pairs, by the corner errors of deformed patches."""
    from vpr_dhe.training.registration.iterative import IterativeStage

    if unpaired and not labels:
        raise BadInputError(
            "--unpaired pairs photos with other contrasts, whose pixels cannot be compared; leave out --no-labels"
        )
    if matching_weight and (not labels or network.network != "iterative"):
        raise BadInputError(
            "--matching-weight needs the features of --network iterative and known homographies; leave out "
            "--no-labels and --network, or --matching-weight"
        )
    if pairs is not None and not unpaired:
        raise BadInputError("--pairs adds aligned pairs to --unpaired photos; give --unpaired, or the pairs as DATA")
    device = loop.pick_device()
    shape = network.settings(RegistrationLayout.ihn, loop.start)
    settings = data.training(loop, batch_size, learning_rate)
    opened = data.open(shape, unpaired=unpaired, pairs=pairs)
    stage = IterativeStage(
        shape,
        opened,
        settings,
        training_data=data.description,
        labels=labels,
        matching_weight=matching_weight,
    )
    loop.train(stage, device)
