"""`vpr-dhe train pretrain`: network from random weights, without labels."""

from typing import Annotated

import typer

from vpr_dhe.cli.train.options import DataOptions, LoopOptions, NetworkOptions
from vpr_dhe.cli.train.running import train_stage

NAME = "pretrain"
EXAMPLES = """
vpr-dhe train pretrain photos --model new:cct_7_7x2_224@224 --out run
"""


def run(
    data: DataOptions,
    network: NetworkOptions,
    loop: LoopOptions,
    half_size_steps: Annotated[
        int, typer.Option(min=0, help="First steps, on images of half the side, at a quarter of the cost.")
    ] = 0,
    batch_size: Annotated[
        int, typer.Option(min=2, help="Pairs per step and process; each is contrasted with the others.")
    ] = 32,
    learning_rate: Annotated[float, typer.Option(min=0, help="Peak learning rate of AdamW.")] = 1e-3,
    validation_pairs: Annotated[
        int, typer.Option(min=2, help="Maximum number of held-out pairs for validation.")
    ] = 128,
) -> None:
    """Train a network to match views and points of warped photos and generated towns."""
    from vpr_dhe.training.pretrain.stage import PretrainSettings, PretrainStage
    from vpr_dhe.training.sources import open_training_data
    from vpr_dhe.training.trainable_extractor import TrainableExtractor

    device = loop.pick_device()
    start = network.open(loop.seed)
    pairs = open_training_data(data.data, start.preprocessing.size, data.protocol, textures=data.textures)
    settings = PretrainSettings(
        steps=loop.steps,
        half_size_steps=half_size_steps,
        batch_size=batch_size,
        learning_rate=learning_rate,
        seed=loop.seed,
        validation_pairs=validation_pairs,
    )
    extractor = TrainableExtractor(start, network.first_trained_block)
    train_stage(PretrainStage(extractor, start, pairs, settings, training_data=data.description), loop, device)
