"""`vpr-dhe train dhe`: homography head on a frozen extractor."""

from typing import Annotated

import typer

from vpr_dhe.cli.shared.progress import print_stderr
from vpr_dhe.cli.train.options import (
    DataOptions,
    HeadOptions,
    LoopOptions,
    MinInliersOption,
    ValidationPairsOption,
)
from vpr_dhe.cli.train.running import train_stage

NAME = "dhe"
EXAMPLES = """
vpr-dhe train dhe photos --model model.safetensors --out run
"""


def run(
    data: DataOptions,
    head: HeadOptions,
    loop: LoopOptions,
    warmup_steps: Annotated[int, typer.Option(min=0, help="First steps, on warps with known homographies.")] = 5000,
    batch_size: Annotated[int, typer.Option(min=1, help="Pairs per step and process.")] = 16,
    learning_rate: Annotated[
        float, typer.Option(min=0, help="Learning rate of Adam; times 0.8 every 10,000 steps.")
    ] = 1e-4,
    min_inliers: MinInliersOption = 16,
    validation_pairs: ValidationPairsOption = 64,
) -> None:
    """Train the homography head on a frozen extractor: a warm-up by corner errors, then REI on pairs of one place."""
    from vpr_dhe.training.dhe.stage import DheSettings, DheStage
    from vpr_dhe.training.sources import open_training_data
    from vpr_dhe.verification.estimators.dhe import INPUT_SIZE

    device = loop.pick_device()
    opened = open_training_data(data.data, INPUT_SIZE, data.protocol, textures=data.textures)
    print_stderr(f"warm-up: {opened.warps.description}; then: {opened.positives.description}")
    settings = DheSettings(
        warmup_steps=warmup_steps,
        batch_size=batch_size,
        learning_rate=learning_rate,
        min_inliers=min_inliers,
        seed=loop.seed,
        validation_pairs=validation_pairs,
    )
    extractor = head.load(device)
    stage = DheStage(extractor, opened, settings, training_data=data.description)
    train_stage(stage, loop, device)
