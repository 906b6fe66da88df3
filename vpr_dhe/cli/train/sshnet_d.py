"""`vpr-dhe train sshnet-d`: registration network distilled from a trained sshnet."""

from pathlib import Path
from typing import Annotated

import typer

from vpr_dhe.cli.train.registration_options import (
    AlignedDataOptions,
    RegistrationLoopOptions,
    RegistrationNetworkOptions,
)
from vpr_dhe.runtime.choices import RegistrationLayout

NAME = "sshnet-d"
EXAMPLES = """
vpr-dhe train sshnet-d pairs --teacher run/best.safetensors --out distilled
"""


def run(
    data: AlignedDataOptions,
    network: RegistrationNetworkOptions,
    loop: RegistrationLoopOptions,
    teacher: Annotated[Path, typer.Option(help="Network file of `vpr-dhe train sshnet`.")],
    batch_size: Annotated[int, typer.Option(min=1, help="Pairs per step and process.")] = 16,
    learning_rate: Annotated[float, typer.Option(min=0, help="Peak learning rate of AdamW.")] = 4e-4,
) -> None:
    """Train the network of the verifier sshnet-d on image pairs of two modalities, by distillation from sshnet."""
    from vpr_dhe.models.network_file import load_network
    from vpr_dhe.training.registration.sshnet_d import DistilledSshnetStage

    device = loop.pick_device()
    shape = network.settings(RegistrationLayout.sshnet, loop.start)
    settings = data.training(loop, batch_size, learning_rate, decay=0.8)
    sshnet = load_network(teacher)
    stage = DistilledSshnetStage(shape, data.open(shape), settings, training_data=data.description, teacher=sshnet)
    loop.train(stage, device)
