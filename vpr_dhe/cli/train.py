"""`vpr-dhe train`: one command per stage of training."""

from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeAlias

import typer

from vpr_dhe.cli.common import Device, pick_device, progress_bar, say

if TYPE_CHECKING:
    from vpr_dhe.models.model_file import ModelFile
    from vpr_dhe.training.loop import LoopSettings
    from vpr_dhe.training.stages.base import Stage

NAME = "train"
_DEFAULT_MODEL = "sift-vlad"
_NEW, _EXAMPLE = "new:", "new:cct_7_7x2_224@224"
app = typer.Typer(
    name=NAME,
    help="Train a stage; the same command goes on with a run that was interrupted.",
    no_args_is_help=True,
    rich_markup_mode=None,
)


class Precision(StrEnum):
    """Of matrix products; with half precisions, what needs more is still computed in full."""

    full = "full"
    bf16 = "bf16"
    fp16 = "fp16"


DataArgument: TypeAlias = Annotated[
    list[str],
    typer.Argument(help="Folders of photos or of place data sets; synthetic-town for generated streets."),
]
ModelOption: TypeAlias = Annotated[str, typer.Option(help="Model to start from; see `vpr-dhe models`.")]
OutOption: TypeAlias = Annotated[Path, typer.Option(help="Folder of the run: state, logs and best model.")]
StepsOption: TypeAlias = Annotated[int, typer.Option(min=1, help="Steps in all; a finished run can be extended.")]
BatchSizeOption: TypeAlias = Annotated[int, typer.Option(min=1, help="Pairs per step and process.")]
SeedOption: TypeAlias = Annotated[int, typer.Option(min=0, help="Of initial weights, data and their order.")]
SplitOption: TypeAlias = Annotated[str | None, typer.Option(help="Of data sets with splits. [train]")]
RadiusOption: TypeAlias = Annotated[
    float | None, typer.Option(min=0, help="Distance in metres up to which images are positives. [10 with splits]")
]
HeadingOption: TypeAlias = Annotated[
    float | None, typer.Option(min=0, max=180, help="Positives must also look the same way, up to this.")
]
TrainingDataOption: TypeAlias = Annotated[
    str | None, typer.Option(help="What the images are and their licences, for the model file. [the names of DATA]")
]
ValidateEveryOption: TypeAlias = Annotated[int, typer.Option(min=1, help="Steps between validations.")]
SaveEveryOption: TypeAlias = Annotated[int, typer.Option(min=1, help="Steps that an interruption may cost.")]
LogEveryOption: TypeAlias = Annotated[int, typer.Option(min=1, help="Steps whose mean is one line of the logs.")]
WorkersOption: TypeAlias = Annotated[int, typer.Option(min=0, help="Processes that prepare batches.")]
MaxMinutesOption: TypeAlias = Annotated[
    float | None, typer.Option(min=0, help="Save and stop after this long, to go on another time.")
]
PrecisionOption: TypeAlias = Annotated[Precision, typer.Option(help="Of matrix products.")]
DeviceOption: TypeAlias = Annotated[Device, typer.Option(help="Where networks run.")]


@app.command()
def dhe(
    data: DataArgument,
    out: OutOption,
    model: ModelOption = _DEFAULT_MODEL,
    steps: StepsOption = 50_000,
    warmup_steps: Annotated[
        int, typer.Option(min=0, help="Of them on warps with known homographies, by corner error.")
    ] = 5000,
    batch_size: BatchSizeOption = 16,
    learning_rate: Annotated[float, typer.Option(min=0, help="Of Adam; times 0.8 every 10,000 steps.")] = 1e-4,
    min_inliers: Annotated[
        int, typer.Option(min=4, help="Pairs with fewer matches that agree are not learned from by REI.")
    ] = 16,
    split: SplitOption = None,
    radius_m: RadiusOption = None,
    heading_tolerance_deg: HeadingOption = None,
    training_data: TrainingDataOption = None,
    seed: SeedOption = 0,
    validate_every: ValidateEveryOption = 1000,
    save_every: SaveEveryOption = 500,
    log_every: LogEveryOption = 50,
    workers: WorkersOption = 0,
    max_minutes: MaxMinutesOption = None,
    precision: PrecisionOption = Precision.full,
    device: DeviceOption = Device.auto,
) -> None:
    """Train the homography head on an extractor that stays as it is: a warm-up, then REI on pairs of one place."""
    from vpr_dhe.estimators.dhe import INPUT_SIZE
    from vpr_dhe.features.extractor import load_extractor
    from vpr_dhe.places import Protocol
    from vpr_dhe.training.sources import open_training_data
    from vpr_dhe.training.stages.dhe import DheSettings, DheStage

    where = _training_device(device, precision)
    protocol = Protocol(split=split, radius_m=radius_m, heading_tolerance_deg=heading_tolerance_deg)
    opened = open_training_data(data, INPUT_SIZE, protocol)
    say(f"warm-up: {opened.warps.description}; then: {opened.positives.description}")
    settings = DheSettings(
        warmup_steps=warmup_steps,
        batch_size=batch_size,
        learning_rate=learning_rate,
        min_inliers=min_inliers,
        seed=seed,
    )
    extractor = load_extractor(model, where)
    stage = DheStage(extractor, opened, settings, training_data=training_data or _named(data))
    loop = _loop_settings(
        steps, seed, validate_every, save_every, log_every, workers, max_minutes, precision, on_cpu=where == "cpu"
    )
    _train(stage, loop, out)


class Loss(StrEnum):
    """What a descriptor is trained by."""

    triplet = "triplet"
    multi_similarity = "multi-similarity"


class MiningChoice(StrEnum):
    """Where the negatives of triplets are looked for."""

    random = "random"
    partial = "partial"
    full = "full"


NetworkOption: TypeAlias = Annotated[
    str, typer.Option(help="Network to start from: a model file, timm:NAME, or new:BACKBONE@SIDE for random weights.")
]
FirstBlockOption: TypeAlias = Annotated[
    int | None, typer.Option(min=0, help="Transformer blocks before this one are not trained. [all are]")
]
MiningOption: TypeAlias = Annotated[MiningChoice, typer.Option(help="Where negatives of triplets are looked for.")]


@app.command()
def descriptor(
    data: DataArgument,
    out: OutOption,
    model: NetworkOption,
    loss: Annotated[
        Loss, typer.Option(help="Triplets of one place data set, or pairs of any data against each other.")
    ] = Loss.triplet,
    first_trained_block: FirstBlockOption = None,
    steps: StepsOption = 50_000,
    batch_size: Annotated[int | None, typer.Option(min=1, help="Triplets (4) or pairs (32) per step.")] = None,
    learning_rate: Annotated[float, typer.Option(min=0, help="Of Adam.")] = 1e-5,
    mining: MiningOption = MiningChoice.partial,
    negatives: Annotated[int, typer.Option(min=1, help="Of each triplet.")] = 10,
    split: SplitOption = None,
    radius_m: RadiusOption = None,
    heading_tolerance_deg: HeadingOption = None,
    training_data: TrainingDataOption = None,
    seed: SeedOption = 0,
    validate_every: ValidateEveryOption = 1000,
    save_every: SaveEveryOption = 500,
    log_every: LogEveryOption = 50,
    workers: WorkersOption = 0,
    max_minutes: MaxMinutesOption = None,
    precision: PrecisionOption = Precision.full,
    device: DeviceOption = Device.auto,
) -> None:
    """Train the global descriptor of a network."""
    from vpr_dhe.places import Protocol
    from vpr_dhe.training.mining import Mining, MiningSettings
    from vpr_dhe.training.sources import open_training_data
    from vpr_dhe.training.sources.triplets import open_triplet_data
    from vpr_dhe.training.stages.descriptor import DescriptorSettings, MultiSimilarityStage, TripletStage
    from vpr_dhe.training.trainable_extractor import TrainableExtractor

    where = _training_device(device, precision)
    protocol = Protocol(split=split, radius_m=radius_m, heading_tolerance_deg=heading_tolerance_deg)
    start = _network(model, seed)
    settings = DescriptorSettings(
        batch_size=batch_size or (4 if loss is Loss.triplet else 32),
        learning_rate=learning_rate,
        mining=MiningSettings(Mining(mining.value), negatives=negatives),
        seed=seed,
    )
    extractor = TrainableExtractor(start, first_trained_block)
    text = training_data or _named(data)
    if loss is Loss.triplet:
        stage: "Stage" = TripletStage(
            extractor, start, open_triplet_data(_only(data), protocol), settings, training_data=text
        )
    else:
        opened = open_training_data(data, start.preprocessing.size, protocol)
        stage = MultiSimilarityStage(extractor, start, opened, settings, training_data=text)
    loop = _loop_settings(
        steps, seed, validate_every, save_every, log_every, workers, max_minutes, precision, on_cpu=where == "cpu"
    )
    _train(stage, loop, out)


@app.command()
def joint(
    data: DataArgument,
    out: OutOption,
    model: NetworkOption,
    first_trained_block: FirstBlockOption = None,
    steps: StepsOption = 50_000,
    batch_size: Annotated[int, typer.Option(min=1, help="Triplets per step and process.")] = 4,
    learning_rate: Annotated[float, typer.Option(min=0, help="Of Adam.")] = 1e-5,
    rei_weight: Annotated[float, typer.Option(min=0, help="Of REI in pixels, beside the triplet loss.")] = 100.0,
    min_inliers: Annotated[
        int, typer.Option(min=4, help="Pairs with fewer matches that agree are not learned from by REI.")
    ] = 16,
    mining: MiningOption = MiningChoice.partial,
    negatives: Annotated[int, typer.Option(min=1, help="Of each triplet.")] = 10,
    split: SplitOption = None,
    radius_m: RadiusOption = None,
    heading_tolerance_deg: HeadingOption = None,
    training_data: TrainingDataOption = None,
    seed: SeedOption = 0,
    validate_every: ValidateEveryOption = 1000,
    save_every: SaveEveryOption = 500,
    log_every: LogEveryOption = 50,
    workers: WorkersOption = 0,
    max_minutes: MaxMinutesOption = None,
    precision: PrecisionOption = Precision.full,
    device: DeviceOption = Device.auto,
) -> None:
    """Train a network and its homography head together, on triplets of a place data set."""
    from vpr_dhe.places import Protocol
    from vpr_dhe.training.mining import Mining, MiningSettings
    from vpr_dhe.training.sources.triplets import open_triplet_data
    from vpr_dhe.training.stages.joint import JointSettings, JointStage
    from vpr_dhe.training.trainable_extractor import TrainableExtractor

    where = _training_device(device, precision)
    protocol = Protocol(split=split, radius_m=radius_m, heading_tolerance_deg=heading_tolerance_deg)
    start = _network(model, seed)
    settings = JointSettings(
        batch_size=batch_size,
        learning_rate=learning_rate,
        mining=MiningSettings(Mining(mining.value), negatives=negatives),
        seed=seed,
        rei_weight=rei_weight,
        min_inliers=min_inliers,
    )
    stage = JointStage(
        TrainableExtractor(start, first_trained_block),
        start,
        open_triplet_data(_only(data), protocol),
        settings,
        training_data=training_data or _named(data),
    )
    loop = _loop_settings(
        steps, seed, validate_every, save_every, log_every, workers, max_minutes, precision, on_cpu=where == "cpu"
    )
    _train(stage, loop, out)


def _network(name: str, seed: int) -> "ModelFile":
    """Open a model that can be trained, or make one of random weights."""
    from vpr_dhe.errors import ModelError
    from vpr_dhe.features.extractor import load_extractor
    from vpr_dhe.records import Size
    from vpr_dhe.training.trainable_extractor import new_model

    if not name.startswith(_NEW):
        return load_extractor(name).model_file
    backbone, _, side = name.removeprefix(_NEW).partition("@")
    if not side.isdecimal():
        raise ModelError(f"{name!r} names no input side in pixels; write {_NEW}BACKBONE@SIDE, such as {_EXAMPLE}")
    return new_model(backbone, "gem", Size(int(side), int(side)), seed)


def _only(data: Sequence[str]) -> Path:
    from vpr_dhe.errors import BadInputError

    if len(data) != 1:
        raise BadInputError(f"triplets are mined in one data set, and {len(data)} were given")
    return Path(data[0])


def _training_device(device: Device, precision: Precision) -> str:
    from vpr_dhe.errors import BadInputError
    from vpr_dhe.training.extra import import_accelerate

    import_accelerate()
    where = pick_device(device)
    if where == "cpu" and precision is Precision.fp16:
        raise BadInputError("--precision fp16 needs a GPU; use bf16 or full")
    return where


def _named(data: Sequence[str]) -> str:
    """What can be said of the data without being told."""
    return f"trained by the user on {', '.join(Path(name).name for name in data)}"


def _loop_settings(
    steps: int,
    seed: int,
    validate_every: int,
    save_every: int,
    log_every: int,
    workers: int,
    max_minutes: float | None,
    precision: Precision,
    *,
    on_cpu: bool,
) -> "LoopSettings":
    from vpr_dhe.training.loop import LoopSettings

    return LoopSettings(
        steps=steps,
        seed=seed,
        validate_every=validate_every,
        save_every=save_every,
        log_every=log_every,
        precision="no" if precision is Precision.full else precision.value,
        on_cpu=on_cpu,
        workers=workers,
        max_minutes=max_minutes,
    )


def _train(stage: "Stage", settings: "LoopSettings", out: Path) -> None:
    """Train, and say where the result is; Ctrl-C leaves a run that can be continued."""
    from vpr_dhe.training.loop import train

    with progress_bar(settings.steps, "training", "step") as bar:
        try:
            result = train(stage, settings, out, progress=bar.update)
        except KeyboardInterrupt:
            say(f"interrupted; {out} keeps the last saved state, and the same command goes on from there")
            raise typer.Exit(1) from None
    if not result.finished:
        say(f"step {result.step} of {settings.steps}; the same command goes on from there")
    if result.best_score is not None:
        print(f"{result.best_model}: the best model so far, {result.best_score:.4g} on held-out data")


@app.command()
def dhe_lite(
    data: DataArgument,
    out: OutOption,
    model: ModelOption = _DEFAULT_MODEL,
    steps: StepsOption = 10_000,
    warmup_steps: Annotated[
        int, typer.Option(min=0, help="Of them on known homographies alone, to the end of their round.")
    ] = 5000,
    known_share: Annotated[
        float, typer.Option(min=0, max=1, help="Of pairs with known homographies after the warm-up.")
    ] = 0.5,
    batch_size: BatchSizeOption = 32,
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
    min_inliers: Annotated[
        int, typer.Option(min=4, help="Pairs of unknown homography with fewer matches that agree are left out.")
    ] = 16,
    validation_pairs: Annotated[int, typer.Option(min=1, help="Held-out pairs to validate with, at most.")] = 200,
    split: SplitOption = None,
    radius_m: RadiusOption = None,
    heading_tolerance_deg: HeadingOption = None,
    training_data: TrainingDataOption = None,
    seed: SeedOption = 0,
    validate_every: ValidateEveryOption = 1000,
    save_every: SaveEveryOption = 500,
    log_every: LogEveryOption = 50,
    workers: WorkersOption = 0,
    max_minutes: MaxMinutesOption = None,
    precision: PrecisionOption = Precision.full,
    device: DeviceOption = Device.auto,
) -> None:
    """Train the network that weighs matches, for the verifier dhe-lite, on an extractor that stays as it is."""
    from vpr_dhe.features.extractor import load_extractor
    from vpr_dhe.places import Protocol
    from vpr_dhe.training.sources import open_training_data
    from vpr_dhe.training.stages.dhe_lite import DheLiteSettings, DheLiteStage

    where = _training_device(device, precision)
    protocol = Protocol(split=split, radius_m=radius_m, heading_tolerance_deg=heading_tolerance_deg)
    extractor = load_extractor(model, where)
    opened = open_training_data(data, extractor.spec.input_size, protocol)
    say(f"known homographies: {opened.warps.description}; pairs of places: {opened.positives.description}")
    settings = DheLiteSettings(
        warmup_steps=warmup_steps,
        known_share=known_share,
        batch_size=batch_size,
        learning_rate=learning_rate,
        decay_steps=decay_steps or steps,
        pairs_per_round=pairs_per_round,
        epochs_per_round=epochs_per_round,
        negatives=negatives,
        rei_weight=rei_weight,
        distillation_weight=distillation_weight,
        min_inliers=min_inliers,
        seed=seed,
        validation_pairs=validation_pairs,
    )
    stage = DheLiteStage(extractor, opened, settings, training_data=training_data or _named(data))
    loop = _loop_settings(
        steps, seed, validate_every, save_every, log_every, workers, max_minutes, precision, on_cpu=where == "cpu"
    )
    _train(stage, loop, out)
