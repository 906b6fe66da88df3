"""`vpr-dhe train pretrain`: a network from random weights, without labels."""

from typing import Annotated

import typer

from vpr_dhe.cli.train.options import DataOptions, LoopOptions, NetworkOptions
from vpr_dhe.cli.train.running import train_stage

NAME = "pretrain"


def run(
    data: DataOptions,
    network: NetworkOptions,
    loop: LoopOptions,
    half_size_steps: Annotated[
        int, typer.Option(min=0, help="Steps, of the first, on images of half the side, which cost a quarter.")
    ] = 0,
    batch_size: Annotated[int, typer.Option(min=2, help="Pairs per step and process, each told from the others.")] = 32,
    learning_rate: Annotated[float, typer.Option(min=0, help="Of AdamW, at its highest.")] = 1e-3,
    validation_pairs: Annotated[int, typer.Option(min=2, help="Held-out pairs to validate with, at most.")] = 128,
) -> None:
    """Train a network on warped photos and generated towns: which views, and which points, are the same."""
    from vpr_dhe.training.pretrain.stage import PretrainSettings, PretrainStage
    from vpr_dhe.training.sources import open_training_data
    from vpr_dhe.training.trainable_extractor import TrainableExtractor

    where = loop.pick_device()
    start = network.open(loop.seed)
    pairs = open_training_data(data.data, start.preprocessing.size, data.protocol)
    settings = PretrainSettings(
        steps=loop.steps,
        half_size_steps=half_size_steps,
        batch_size=batch_size,
        learning_rate=learning_rate,
        seed=loop.seed,
        validation_pairs=validation_pairs,
    )
    extractor = TrainableExtractor(start, network.first_trained_block)
    train_stage(PretrainStage(extractor, start, pairs, settings, training_data=data.description), loop, where)
