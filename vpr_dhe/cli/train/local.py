"""`vpr-dhe train local`: head that makes local maps, on a frozen network."""

from dataclasses import dataclass
from typing import Annotated

import typer

from vpr_dhe.cli.shared.options import complete_model
from vpr_dhe.cli.shared.progress import print_stderr
from vpr_dhe.cli.train.options import (
    DecayStepsOption,
    LoopOptions,
    PhotosOptions,
    StepsOption,
    ValidationPairsOption,
    open_network,
)
from vpr_dhe.cli.train.running import train_stage
from vpr_dhe.errors import BadInputError
from vpr_dhe.models.names import DEFAULT_MODEL

NAME = "local"
EXAMPLES = """
vpr-dhe train local photos --out run
"""


@dataclass(frozen=True)
class ShortLoopOptions(LoopOptions):
    """Loop options with fewer steps, because the head is small."""

    steps: StepsOption = 1200


@dataclass(frozen=True)
class LocalOptions:
    """Network whose tokens the head takes, and the head."""

    TITLE = "Network"

    model: Annotated[
        str,
        typer.Option(
            help="Network to start from: a model, or new:BACKBONE@SIDE for random weights.",
            autocompletion=complete_model,
        ),
    ] = DEFAULT_MODEL
    new_head: Annotated[
        bool, typer.Option("--new-head", help="Start from random weights instead of the model's local head.")
    ] = False
    dimension: Annotated[int | None, typer.Option(min=8, help="Length of the descriptors of a new head. [64]")] = None


def run(
    photos: PhotosOptions,
    network: LocalOptions,
    loop: ShortLoopOptions,
    batch_size: Annotated[int, typer.Option(min=1, help="Pairs per step and process.")] = 12,
    learning_rate: Annotated[float, typer.Option(min=0, help="Peak learning rate of AdamW.")] = 2e-3,
    decay_steps: DecayStepsOption = None,
    validation_pairs: ValidationPairsOption = 120,
) -> None:
    """Train the head that makes local maps from the tokens of a frozen network; no labels are needed."""
    from vpr_dhe.features.extractor import extractor_of
    from vpr_dhe.features.local_head import local_head_of
    from vpr_dhe.training.local_head import LocalHeadSettings, LocalHeadStage
    from vpr_dhe.training.sources import open_images
    from vpr_dhe.training.trainable_extractor import require_network

    device = loop.pick_device()
    model = require_network(open_network(network.model, loop.seed))
    head = None if network.new_head else local_head_of(model)
    if head is not None and network.dimension is not None:
        raise BadInputError(
            f"--dimension is for a new head, and {network.model} has one, which training continues; add --new-head, or "
            "leave it out"
        )
    extractor = extractor_of(model.without_local_head(), model.name, device)
    training, validation = open_images(photos.photos, extractor.spec.input_size)
    print_stderr(f"views of {training.description}")
    settings = LocalHeadSettings(
        batch_size=batch_size,
        learning_rate=learning_rate,
        decay_steps=decay_steps or loop.steps,
        dimension=network.dimension or LocalHeadSettings.dimension,
        seed=loop.seed,
        validation_pairs=validation_pairs,
    )
    stage = LocalHeadStage(
        extractor,
        training,
        validation,
        settings,
        training_data=photos.description,
        head=head,
    )
    train_stage(stage, loop, device)
