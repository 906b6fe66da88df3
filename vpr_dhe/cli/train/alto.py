"""`vpr-dhe train alto`: a registration network across modalities, without labels."""

from typing import Annotated

import typer

from vpr_dhe.cli.train.registration_options import (
    AlignedDataOptions,
    EncoderChoice,
    RegistrationLoopOptions,
    RegistrationNetworkOptions,
)
from vpr_dhe.cli.train.running import train_stage

NAME = "alto"


def run(
    data: AlignedDataOptions,
    network: RegistrationNetworkOptions,
    loop: RegistrationLoopOptions,
    encoder: Annotated[EncoderChoice, typer.Option(help="What the loss compares images by.")] = EncoderChoice.resnet34,
    batch_size: Annotated[int, typer.Option(min=2, help="Pairs per step and process, each told from the others.")] = 16,
    learning_rate: Annotated[float, typer.Option(min=0, help="Of AdamW, at its highest.")] = 3e-4,
) -> None:
    """Train the network of the verifier alto on image pairs of two modalities, without labels."""
    from vpr_dhe.training.stages.alto import AltoStage, EncoderSettings
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
    encoding = EncoderSettings(encoder.value)
    stage = AltoStage(shape, data.open(shape), settings, training_data=data.description, encoder=encoding)
    train_stage(stage, loop, where)
