"""`vpr-dhe train alto`: cross-modal registration network, without labels."""

from typing import Annotated

import typer

from vpr_dhe.cli.train.registration_options import (
    AlignedDataOptions,
    EncoderChoice,
    RegistrationLoopOptions,
    RegistrationNetworkOptions,
)
from vpr_dhe.runtime.choices import RegistrationLayout

NAME = "alto"
EXAMPLES = """
vpr-dhe train alto pairs --out run
"""


def run(
    data: AlignedDataOptions,
    network: RegistrationNetworkOptions,
    loop: RegistrationLoopOptions,
    encoder: Annotated[
        EncoderChoice,
        typer.Option(
            help="Encoder of the losses: a ResNet with random weights, or the pretrained network of lite-vlad."
        ),
    ] = EncoderChoice.resnet34,
    batch_size: Annotated[
        int, typer.Option(min=2, help="Pairs per step and process; each is contrasted with the others.")
    ] = 16,
    learning_rate: Annotated[float, typer.Option(min=0, help="Peak learning rate of AdamW.")] = 3e-4,
    alternation: Annotated[
        bool, typer.Option(help="Train each network by its own loss, or, as an ablation, all by both.")
    ] = True,
    pooling: Annotated[
        bool, typer.Option(help="Compare whole images in the modality loss, or, as an ablation, single cells.")
    ] = True,
) -> None:
    """Train the network of the verifier alto on image pairs of two modalities, without labels."""
    from vpr_dhe.training.registration.alto import AltoSettings, AltoStage

    device = loop.pick_device()
    shape = network.settings(RegistrationLayout.alto, loop.start)
    settings = data.training(loop, batch_size, learning_rate)
    method = AltoSettings(encoder.value, alternation, pooling)
    stage = AltoStage(shape, data.open(shape), settings, training_data=data.description, method=method)
    loop.train(stage, device)
