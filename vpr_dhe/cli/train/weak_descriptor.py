"""`vpr-dhe train weak-descriptor`: patch descriptor from image pairs."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated

import typer

from vpr_dhe.cli.shared.callbacks import existing_training_data
from vpr_dhe.cli.shared.progress import print_stderr
from vpr_dhe.cli.train.options import LoopOptions, StepsOption, ValidationPairsOption, training_data_description
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


def run(
    data: Annotated[
        list[str],
        typer.Argument(
            help="Folders of image pairs or photos; synthetic-town for generated streets.",
            callback=existing_training_data,
        ),
    ],
    loop: ShorterLoopOptions,
    homographies: Annotated[
        Homographies,
        typer.Option(help="Homographies of pairs: known ones, or those that weak-alignment learns on each."),
    ] = Homographies.known,
    pseudo_siamese: Annotated[
        bool, typer.Option("--pseudo-siamese", help="Use separate first layers for the two images, as for two sensors.")
    ] = False,
    training_data: Annotated[
        str | None,
        typer.Option(help="Description and licences of the images, for the network file. [names of DATA]"),
    ] = None,
    batch_size: Annotated[int, typer.Option(min=2, help="Patches of each image per step and process.")] = 128,
    learning_rate: Annotated[float, typer.Option(min=0, help="Peak learning rate.")] = 0.1,
    decay_steps: Annotated[
        int | None, typer.Option(min=1, help="Steps until the learning rate has decayed to 1/100. [--steps]")
    ] = None,
    margin: Annotated[float, typer.Option(min=0, help="Margin between descriptors of different places.")] = 1.0,
    pairs_per_round: Annotated[int, typer.Option(min=1, help="Pairs per round.")] = 32,
    patches_per_pair: Annotated[int, typer.Option(min=2, help="Maximum number of patches per pair.")] = 256,
    epochs_per_round: Annotated[int, typer.Option(min=1, help="Epochs over the patches of a round.")] = 4,
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
    if homographies is Homographies.learned:
        aligner = WeakAlignmentEstimator(WeakAlignmentSettings(pseudo_siamese=pseudo_siamese), device=device)
    opened = open_pair_data(data, Size(_WARP_SIDE_PX, _WARP_SIDE_PX), aligner)
    print_stderr(f"pairs: {opened.training.description}")
    settings = WeakDescriptorStageSettings(
        pseudo_siamese=pseudo_siamese,
        batch_size=batch_size,
        learning_rate=learning_rate,
        decay_steps=decay_steps or loop.steps,
        margin=margin,
        pairs_per_round=pairs_per_round,
        patches_per_pair=patches_per_pair,
        epochs_per_round=epochs_per_round,
        seed=loop.seed,
        validation_pairs=validation_pairs,
    )
    stage = WeakDescriptorStage(opened, settings, training_data=training_data_description(training_data, data))
    train_stage(stage, loop, device)
