"""`vpr-dhe train dhe-lite`: the network that weighs matches, on an extractor that stays as it is."""

from dataclasses import dataclass
from typing import Annotated

import typer

from vpr_dhe.cli.common import say
from vpr_dhe.cli.train.options import (
    DataOptions,
    HeadOptions,
    LoopOptions,
    MinInliersOption,
    StepsOption,
    ValidationPairsOption,
)
from vpr_dhe.cli.train.running import train_stage

NAME = "dhe-lite"


@dataclass(frozen=True)
class ShorterLoopOptions(LoopOptions):
    """Steps are few: every pair is learned from several times."""

    steps: StepsOption = 10_000


def run(
    data: DataOptions,
    head: HeadOptions,
    loop: ShorterLoopOptions,
    warmup_steps: Annotated[
        int, typer.Option(min=0, help="Of them on known homographies alone, to the end of their round.")
    ] = 5000,
    known_share: Annotated[
        float, typer.Option(min=0, max=1, help="Of pairs with known homographies after the warm-up.")
    ] = 0.5,
    batch_size: Annotated[int, typer.Option(min=1, help="Pairs per step and process.")] = 32,
    learning_rate: Annotated[float, typer.Option(min=0, help="Of Adam, at its height.")] = 2e-3,
    decay_steps: Annotated[
        int | None, typer.Option(min=1, help="Steps until the rate has sunk to a hundredth. [--steps]")
    ] = None,
    pairs_per_round: Annotated[int, typer.Option(min=2, help="Pairs described before they are learned from.")] = 1024,
    epochs_per_round: Annotated[int, typer.Option(min=1, help="How often a round is learned from.")] = 8,
    negatives: Annotated[float, typer.Option(min=0, help="Pairs of different places, per pair of one place.")] = 0.6,
    rei_weight: Annotated[float, typer.Option(min=0, help="Of REI, in units of 20 px; 0 is without.")] = 1.0,
    distillation_weight: Annotated[
        float, typer.Option(min=0, help="Of learning which matches MAGSAC keeps; 0 is without.")
    ] = 1.0,
    min_inliers: MinInliersOption = 16,
    validation_pairs: ValidationPairsOption = 200,
) -> None:
    """Train the network that weighs matches, for the verifier dhe-lite, on an extractor that stays as it is."""
    from vpr_dhe.training.dhe_lite import DheLiteSettings, DheLiteStage
    from vpr_dhe.training.sources import open_training_data

    where = loop.pick_device()
    extractor = head.load(where)
    opened = open_training_data(data.data, extractor.spec.input_size, data.protocol)
    say(f"known homographies: {opened.warps.description}; pairs of places: {opened.positives.description}")
    settings = DheLiteSettings(
        warmup_steps=warmup_steps,
        known_share=known_share,
        batch_size=batch_size,
        learning_rate=learning_rate,
        decay_steps=decay_steps or loop.steps,
        pairs_per_round=pairs_per_round,
        epochs_per_round=epochs_per_round,
        negatives=negatives,
        rei_weight=rei_weight,
        distillation_weight=distillation_weight,
        min_inliers=min_inliers,
        seed=loop.seed,
        validation_pairs=validation_pairs,
    )
    train_stage(DheLiteStage(extractor, opened, settings, training_data=data.description), loop, where)
