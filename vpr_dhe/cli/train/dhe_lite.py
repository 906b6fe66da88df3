"""`vpr-dhe train dhe-lite`: network that weights matches, on a frozen extractor."""

from dataclasses import dataclass
from typing import Annotated

import typer

from vpr_dhe.cli.shared.progress import print_stderr
from vpr_dhe.cli.train.options import (
    DataOptions,
    DecayStepsOption,
    HeadOptions,
    LoopOptions,
    MinInliersOption,
    StepsOption,
    ValidationPairsOption,
)
from vpr_dhe.cli.train.running import train_stage

NAME = "dhe-lite"
EXAMPLES = """
vpr-dhe train dhe-lite photos synthetic-town --out run
"""


@dataclass(frozen=True)
class ShorterLoopOptions(LoopOptions):
    """Loop options with fewer steps, because each pair is used several times."""

    steps: StepsOption = 10_000


@dataclass(frozen=True)
class KnownOptions:
    """Use of pairs with known homographies."""

    warmup_steps: Annotated[
        int, typer.Option(min=0, help="First steps, on known homographies alone; rounded up to whole rounds.")
    ] = 5000
    known_share: Annotated[
        float, typer.Option(min=0, max=1, help="Share of pairs with known homographies after the warm-up.")
    ] = 0.5


@dataclass(frozen=True)
class RoundOptions:
    """Pairs of a round, and their use."""

    pairs_per_round: Annotated[int, typer.Option(min=2, help="Pairs extracted per round.")] = 1024
    epochs_per_round: Annotated[int, typer.Option(min=1, help="Epochs over the pairs of a round.")] = 8
    negatives: Annotated[float, typer.Option(min=0, help="Pairs of different places per pair of one place.")] = 0.6


@dataclass(frozen=True)
class LossOptions:
    """Weights of the losses, and the pairs that REI takes."""

    rei_weight: Annotated[float, typer.Option(min=0, help="Weight of REI, in units of 20 px; 0 leaves it out.")] = 1.0
    distillation_weight: Annotated[
        float, typer.Option(min=0, help="Weight of distillation from the inliers of MAGSAC; 0 leaves it out.")
    ] = 1.0
    min_inliers: MinInliersOption = 16


def run(
    data: DataOptions,
    head: HeadOptions,
    loop: ShorterLoopOptions,
    known: KnownOptions,
    rounds: RoundOptions,
    losses: LossOptions,
    batch_size: Annotated[int, typer.Option(min=1, help="Pairs per step and process.")] = 32,
    learning_rate: Annotated[float, typer.Option(min=0, help="Peak learning rate of Adam.")] = 2e-3,
    decay_steps: DecayStepsOption = None,
    validation_pairs: ValidationPairsOption = 200,
) -> None:
    """Train the match-weighting network of the verifier dhe-lite on a frozen extractor."""
    from vpr_dhe.training.dhe_lite import DheLiteSettings, DheLiteStage
    from vpr_dhe.training.sources import open_training_data

    device = loop.pick_device()
    extractor = head.load(device)
    opened = open_training_data(data.data, extractor.spec.input_size, data.protocol, textures=data.textures)
    print_stderr(f"known homographies: {opened.warps.description}; pairs of places: {opened.positives.description}")
    settings = DheLiteSettings(
        **vars(known),
        **vars(rounds),
        **vars(losses),
        batch_size=batch_size,
        learning_rate=learning_rate,
        decay_steps=decay_steps or loop.steps,
        seed=loop.seed,
        validation_pairs=validation_pairs,
    )
    train_stage(DheLiteStage(extractor, opened, settings, training_data=data.description), loop, device)
