"""`vpr-dhe train joint`: network together with its homography head."""

from typing import Annotated

import typer

from vpr_dhe.cli.train.options import (
    FREEZE_BATCH_NORM_HELP,
    DataOptions,
    LoopOptions,
    MiningOptions,
    MinInliersOption,
    NetworkOptions,
    ValidationPairsOption,
)
from vpr_dhe.cli.train.running import train_stage

NAME = "joint"
EXAMPLES = """
vpr-dhe train joint my-data --model model.safetensors --out run
"""


def run(
    data: DataOptions,
    network: NetworkOptions,
    mining: MiningOptions,
    loop: LoopOptions,
    batch_size: Annotated[int, typer.Option(min=1, help="Triplets per step and process.")] = 4,
    learning_rate: Annotated[float, typer.Option(min=0, help="Learning rate of Adam.")] = 1e-5,
    rei_weight: Annotated[
        float, typer.Option(min=0, help="Weight of REI in pixels, relative to the triplet loss.")
    ] = 100.0,
    min_inliers: MinInliersOption = 16,
    freeze_batch_norm: Annotated[bool, typer.Option(help=FREEZE_BATCH_NORM_HELP)] = True,
    validation_pairs: ValidationPairsOption = 200,
) -> None:
    """Train a network and its homography head together, on triplets of a place data set."""
    from vpr_dhe.training.joint.stage import JointSettings, JointStage
    from vpr_dhe.training.sources.triplets import open_triplet_data
    from vpr_dhe.training.trainable_extractor import TrainableExtractor

    device = loop.pick_device()
    start = network.open(loop.seed)
    settings = JointSettings(
        batch_size=batch_size,
        learning_rate=learning_rate,
        mining=mining.settings(),
        seed=loop.seed,
        validation_pairs=validation_pairs,
        rei_weight=rei_weight,
        min_inliers=min_inliers,
    )
    extractor = TrainableExtractor(start, network.first_trained_block, freeze_batch_norm=freeze_batch_norm)
    triplets = open_triplet_data(data.only_folder, data.protocol)
    train_stage(JointStage(extractor, start, triplets, settings, training_data=data.description), loop, device)
