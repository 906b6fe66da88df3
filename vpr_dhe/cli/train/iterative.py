"""`vpr-dhe train iterative`: a registration network, with known homographies."""

from typing import Annotated

import typer

from vpr_dhe.cli.train.registration_options import (
    AlignedDataOptions,
    RegistrationLoopOptions,
    RegistrationNetworkOptions,
)
from vpr_dhe.cli.train.running import train_stage

NAME = "iterative"


def run(
    data: AlignedDataOptions,
    network: RegistrationNetworkOptions,
    loop: RegistrationLoopOptions,
    batch_size: Annotated[int, typer.Option(min=1, help="Pairs per step and process.")] = 16,
    learning_rate: Annotated[float, typer.Option(min=0, help="Of AdamW, at its highest.")] = 4e-4,
) -> None:
    """Train the network of the verifier iterative on aligned image pairs, by the corner errors of deformed patches."""
    from vpr_dhe.training.stages.iterative import IterativeStage
    from vpr_dhe.training.stages.registration import RegistrationTraining

    where = loop.pick_device()
    shape = network.settings()
    settings = RegistrationTraining(
        steps=loop.steps,
        batch_size=batch_size,
        learning_rate=learning_rate,
        seed=loop.seed,
        validation_pairs=data.validation_pairs,
    )
    stage = IterativeStage(shape, data.open(shape), settings, training_data=data.description)
    train_stage(stage, loop, where)
