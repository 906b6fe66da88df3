"""`vpr-dhe train alto`: a registration network across modalities, without labels."""

from typing import Annotated

import typer

from vpr_dhe.cli.train.registration_options import (
    AlignedDataOptions,
    EncoderChoice,
    RegistrationLoopOptions,
    RegistrationNetworkOptions,
)

NAME = "alto"


def run(
    data: AlignedDataOptions,
    network: RegistrationNetworkOptions,
    loop: RegistrationLoopOptions,
    encoder: Annotated[EncoderChoice, typer.Option(help="What the loss compares images by.")] = EncoderChoice.resnet34,
    batch_size: Annotated[int, typer.Option(min=2, help="Pairs per step and process, each told from the others.")] = 16,
    learning_rate: Annotated[float, typer.Option(min=0, help="Of AdamW, at its highest.")] = 3e-4,
    alternation: Annotated[
        bool, typer.Option(help="Each loss teaches its own networks, or, an ablation, both teach all at once.")
    ] = True,
    pooling: Annotated[
        bool, typer.Option(help="The modality loss compares whole images, or, an ablation, cell by cell.")
    ] = True,
) -> None:
    """Train the network of the verifier alto on image pairs of two modalities, without labels."""
    from vpr_dhe.training.registration.alto import AltoSettings, AltoStage

    where = loop.pick_device()
    shape = network.settings()
    settings = data.training(loop, batch_size, learning_rate)
    method = AltoSettings(encoder.value, alternation, pooling)
    stage = AltoStage(shape, data.open(shape), settings, training_data=data.description, method=method)
    loop.train(stage, where)
