"""`vpr-dhe train weak-descriptor`: a patch descriptor, on pairs that are aligned or that are aligned first."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated

import typer

from vpr_dhe.cli.common import say
from vpr_dhe.cli.train.options import LoopOptions, StepsOption, ValidationPairsOption, describe_data
from vpr_dhe.cli.train.running import train_stage

NAME = "weak-descriptor"
# At which photos are warped.
_VIEW_SIDE_PX = 384


class Homographies(StrEnum):
    """Where those of pairs come from."""

    known = "known"
    learned = "learned"


@dataclass(frozen=True)
class ShorterLoopOptions(LoopOptions):
    """The network is small."""

    steps: StepsOption = 10_000


def run(
    data: Annotated[
        list[str],
        typer.Argument(help="Folders of image pairs or of photos; synthetic-town for generated streets."),
    ],
    loop: ShorterLoopOptions,
    homographies: Annotated[
        Homographies, typer.Option(help="Of pairs: those they come with, or learned on each by weak-alignment.")
    ] = Homographies.known,
    pseudo_siamese: Annotated[
        bool, typer.Option("--pseudo-siamese", help="A first layer for each image, as for two sensors.")
    ] = False,
    training_data: Annotated[
        str | None,
        typer.Option(help="What the images are and their licences, for the network file. [the names of DATA]"),
    ] = None,
    batch_size: Annotated[int, typer.Option(min=2, help="Patches of each image per step and process.")] = 128,
    learning_rate: Annotated[float, typer.Option(min=0, help="Of the descent, at its height.")] = 0.1,
    decay_steps: Annotated[
        int | None, typer.Option(min=1, help="Steps until the rate has sunk to a hundredth. [--steps]")
    ] = None,
    margin: Annotated[float, typer.Option(min=0, help="Between descriptors of different places.")] = 1.0,
    pairs_per_round: Annotated[int, typer.Option(min=1, help="Pairs whose patches are learned from at a time.")] = 32,
    patches_per_pair: Annotated[int, typer.Option(min=2, help="At most.")] = 256,
    epochs_per_round: Annotated[int, typer.Option(min=1, help="How often a round is learned from.")] = 4,
    validation_pairs: ValidationPairsOption = 20,
) -> None:
    """Train a patch descriptor for the verifier weak-descriptor on pairs of images."""
    from vpr_dhe.records import Size
    from vpr_dhe.training.weak_descriptor.pair_sets import open_pair_data
    from vpr_dhe.training.weak_descriptor.stage import WeakDescriptorStage, WeakDescriptorStageSettings
    from vpr_dhe.verification.estimators.cross_modal.weak_alignment.estimator import WeakAlignmentEstimator
    from vpr_dhe.verification.estimators.cross_modal.weak_alignment.learning import WeakAlignmentSettings

    where = loop.pick_device()
    aligner = None
    if homographies is Homographies.learned:
        aligner = WeakAlignmentEstimator(WeakAlignmentSettings(pseudo_siamese=pseudo_siamese), device=where)
    opened = open_pair_data(data, Size(_VIEW_SIDE_PX, _VIEW_SIDE_PX), aligner)
    say(f"pairs: {opened.learned.description}")
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
    stage = WeakDescriptorStage(opened, settings, training_data=describe_data(training_data, data))
    train_stage(stage, loop, where)
