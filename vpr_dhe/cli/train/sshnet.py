"""`vpr-dhe train sshnet`: networks of modality transfer and registration, without labels."""

from pathlib import Path
from typing import Annotated

import typer

from vpr_dhe.cli.train.registration_options import (
    AlignedDataOptions,
    IterativeNetworkOptions,
    RegistrationLoopOptions,
)
from vpr_dhe.runtime.choices import RegistrationLayout, TransferName

NAME = "sshnet"
EXAMPLES = """
vpr-dhe train sshnet pairs --out run
"""


def run(
    data: AlignedDataOptions,
    network: IterativeNetworkOptions,
    loop: RegistrationLoopOptions,
    transfer: Annotated[
        TransferName,
        typer.Option(
            help="Network of modality transfer: a U-Net of Swin transformers (as published, or of earlier versions) or "
            "of convolutions."
        ),
    ] = TransferName.swin_shuffle,
    vgg: Annotated[
        Path | None,
        typer.Option(
            help="Torchvision weights of VGG-16 for the perceptual loss. [features of the registration network]"
        ),
    ] = None,
    batch_size: Annotated[int, typer.Option(min=1, help="Pairs per step and process.")] = 16,
    learning_rate: Annotated[float, typer.Option(min=0, help="Peak learning rate of AdamW.")] = 4e-4,
    split: Annotated[
        bool,
        typer.Option("--split/--joint", help="Train each network by its own loss, or, as an ablation, both by both."),
    ] = True,
) -> None:
    """Train the networks of the verifier sshnet on image pairs of two modalities, without labels."""
    from dataclasses import asdict

    from vpr_dhe.training.registration.sshnet import SshnetStage
    from vpr_dhe.verification.estimators.cross_modal.sshnet import SshnetSettings

    device = loop.pick_device()
    shape = SshnetSettings(**asdict(network.settings(RegistrationLayout.sshnet, loop.start)), transfer=transfer.value)
    settings = data.training(loop, batch_size, learning_rate, decay=0.8)
    stage = SshnetStage(shape, data.open(shape), settings, training_data=data.description, vgg=vgg, split=split)
    loop.train(stage, device)
