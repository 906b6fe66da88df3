"""`vpr-dhe train descriptor`: global descriptor of a network."""

from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

from vpr_dhe.cli.train.options import (
    FREEZE_BATCH_NORM_HELP,
    DataOptions,
    LoopOptions,
    MiningOptions,
    NetworkOptions,
    ValidationPairsOption,
)
from vpr_dhe.cli.train.running import train_stage

if TYPE_CHECKING:
    from vpr_dhe.training.stage import Stage

NAME = "descriptor"
EXAMPLES = """
vpr-dhe train descriptor my-data --model model.safetensors --out run
vpr-dhe train descriptor gsv-cities --model new:cct_14_7x2_224@224 --batch-size 60 --out run
"""


class Loss(StrEnum):
    """Losses of a descriptor."""

    triplet = "triplet"
    multi_similarity = "multi-similarity"


def run(
    data: DataOptions,
    network: NetworkOptions,
    mining: MiningOptions,
    loop: LoopOptions,
    loss: Annotated[
        Loss | None,
        typer.Option(
            help="Loss: triplet on one place data set, or multi-similarity on pairs of any data. "
            "[triplet; multi-similarity on GSV-Cities]",
            show_default=False,
        ),
    ] = None,
    batch_size: Annotated[
        int | None, typer.Option(min=1, help="Triplets, pairs or places per step. [4 triplets; 32 pairs or places]")
    ] = None,
    images_per_place: Annotated[
        int, typer.Option(min=2, help="Photos of each place of GSV-Cities; places with fewer are left out.")
    ] = 4,
    learning_rate: Annotated[float, typer.Option(min=0, help="Learning rate of Adam.")] = 1e-5,
    freeze_batch_norm: Annotated[
        bool | None,
        typer.Option(
            "--freeze-batch-norm/--no-freeze-batch-norm",
            help=f"{FREEZE_BATCH_NORM_HELP} [with the triplet loss]",
            show_default=False,
        ),
    ] = None,
    random_light: Annotated[bool, typer.Option(help="Relight photos at random, with multi-similarity.")] = True,
    validation_pairs: ValidationPairsOption = 200,
) -> None:
    """Train the global descriptor of a network."""
    from vpr_dhe.datasets.gsv_cities import is_gsv_cities
    from vpr_dhe.training.descriptor.stage import DescriptorSettings, MultiSimilarityStage, TripletStage
    from vpr_dhe.training.sources import open_training_data
    from vpr_dhe.training.sources.triplets import open_triplet_data
    from vpr_dhe.training.trainable_extractor import TrainableExtractor

    device = loop.pick_device()
    if loss is None:
        loss = Loss.multi_similarity if any(map(is_gsv_cities, data.data)) else Loss.triplet
    start = network.open(loop.seed)
    settings = DescriptorSettings(
        batch_size=batch_size or (4 if loss is Loss.triplet else 32),
        learning_rate=learning_rate,
        mining=mining.settings(),
        seed=loop.seed,
        validation_pairs=validation_pairs,
    )
    if freeze_batch_norm is None:
        freeze_batch_norm = loss is Loss.triplet
    extractor = TrainableExtractor(start, network.first_trained_block, freeze_batch_norm=freeze_batch_norm)
    if loss is Loss.triplet:
        triplets = open_triplet_data(data.only_folder, data.protocol)
        stage: "Stage" = TripletStage(extractor, start, triplets, settings, training_data=data.description)
    else:
        pairs = open_training_data(
            data.data, start.preprocessing.size, data.protocol, images_per_place, textures=data.textures
        )
        stage = MultiSimilarityStage(
            extractor, start, pairs, settings, training_data=data.description, random_light=random_light
        )
    train_stage(stage, loop, device)
