"""`vpr-dhe train weak-descriptor`: patch descriptor from image pairs."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated

import typer

from vpr_dhe.cli.shared.callbacks import existing_training_data
from vpr_dhe.cli.shared.progress import print_stderr
from vpr_dhe.cli.train.options import (
    DecayStepsOption,
    LoopOptions,
    StepsOption,
    ValidationPairsOption,
    training_data_description,
    training_data_option,
)
from vpr_dhe.cli.train.running import train_stage

NAME = "weak-descriptor"
EXAMPLES = """
vpr-dhe train weak-descriptor pairs --out run
"""
_WARP_SIDE_PX = 384


class Homographies(StrEnum):
    """Sources of the homographies of pairs."""

    known = "known"
    learned = "learned"


@dataclass(frozen=True)
class ShorterLoopOptions(LoopOptions):
    """Loop options with fewer steps, because the network is small."""

    steps: StepsOption = 10_000


@dataclass(frozen=True)
class PairOptions:
    """Image pairs to train on."""

    TITLE = "Training data"

    data: Annotated[
        list[str],
        typer.Argument(
            help="Folders of image pairs or photos; synthetic-town for generated streets.",
            callback=existing_training_data,
        ),
    ]
    homographies: Annotated[
        Homographies,
        typer.Option(help="Homographies of pairs: known ones, or those that weak-alignment learns on each."),
    ] = Homographies.known
    training_data: Annotated[str | None, training_data_option("names of DATA", file="network file")] = None


@dataclass(frozen=True)
class RoundOptions:
    """Pairs and patches of a round, and their use."""

    pairs_per_round: Annotated[int, typer.Option(min=1, help="Pairs per round.")] = 32
    patches_per_pair: Annotated[int, typer.Option(min=2, help="Maximum number of patches per pair.")] = 256
    epochs_per_round: Annotated[int, typer.Option(min=1, help="Epochs over the patches of a round.")] = 4


def run(
    data: PairOptions,
    loop: ShorterLoopOptions,
    rounds: RoundOptions,
    pseudo_siamese: Annotated[
        bool, typer.Option("--pseudo-siamese", help="Use separate first layers for the two images, as for two sensors.")
    ] = False,
    batch_size: Annotated[int, typer.Option(min=2, help="Patches of each image per step and process.")] = 128,
    learning_rate: Annotated[float, typer.Option(min=0, help="Peak learning rate.")] = 0.1,
    decay_steps: DecayStepsOption = None,
    margin: Annotated[float, typer.Option(min=0, help="Margin between descriptors of different places.")] = 1.0,
    validation_pairs: ValidationPairsOption = 20,
) -> None:
    """Train the patch descriptor of the verifier weak-descriptor on image pairs."""
    from vpr_dhe.records import Size
    from vpr_dhe.training.weak_descriptor.pair_sets import open_pair_data
    from vpr_dhe.training.weak_descriptor.stage import WeakDescriptorStage, WeakDescriptorStageSettings
    from vpr_dhe.verification.estimators.cross_modal.weak_alignment.estimator import WeakAlignmentEstimator
    from vpr_dhe.verification.estimators.cross_modal.weak_alignment.learning import WeakAlignmentSettings

    device = loop.pick_device()
    aligner = None
    if data.homographies is Homographies.learned:
        aligner = WeakAlignmentEstimator(WeakAlignmentSettings(pseudo_siamese=pseudo_siamese), device=device)
    opened = open_pair_data(data.data, Size(_WARP_SIDE_PX, _WARP_SIDE_PX), aligner)
    print_stderr(f"pairs: {opened.training.description}")
    settings = WeakDescriptorStageSettings(
        pseudo_siamese=pseudo_siamese,
        batch_size=batch_size,
        learning_rate=learning_rate,
        decay_steps=decay_steps or loop.steps,
        margin=margin,
        **vars(rounds),
        seed=loop.seed,
        validation_pairs=validation_pairs,
    )
    description = training_data_description(data.training_data, data.data)
    stage = WeakDescriptorStage(opened, settings, training_data=description)
    train_stage(stage, loop, device)
