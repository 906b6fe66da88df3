"""Groups of options that stages of training share, and the objects that they build.

A stage derives a group to change a default.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeAlias

import typer

from vpr_dhe.cli.shared.callbacks import existing_folder, existing_folders, existing_training_data, known_model
from vpr_dhe.cli.shared.options import DeviceOption, complete_model, pick_device
from vpr_dhe.models.names import SIFT_VLAD
from vpr_dhe.runtime.choices import AUTO, FP32, Mining, TrainingPrecision

if TYPE_CHECKING:
    from vpr_dhe.datasets import Protocol
    from vpr_dhe.features.base import Extractor
    from vpr_dhe.models.model_file import ModelFile
    from vpr_dhe.training.deadline import Deadline
    from vpr_dhe.training.loop import LoopSettings
    from vpr_dhe.training.mining import MiningSettings

_NEW, _EXAMPLE = "new:", "new:cct_7_7x2_224@224"


StepsOption: TypeAlias = Annotated[
    int, typer.Option(min=1, help="Total number of steps; to extend a finished run, also give its --decay-steps.")
]
MinInliersOption: TypeAlias = Annotated[
    int, typer.Option(min=4, help="Minimum number of agreeing matches of a pair for REI.")
]
FREEZE_BATCH_NORM_HELP = "Keep the statistics of batch normalisation, which those of small batches would spoil."
ValidationPairsOption: TypeAlias = Annotated[
    int, typer.Option(min=1, help="Maximum number of held-out pairs for validation.")
]
DecayStepsOption: TypeAlias = Annotated[
    int | None, typer.Option(min=1, help="Steps until the learning rate has decayed to 1/100. [--steps]")
]


def training_data_option(default: str, images: str = "images", file: str = "model file") -> Any:
    """Option for the description of the training data, which a file that is written holds."""
    return typer.Option(help=f"Description and licences of the {images}, for the {file}. [{default}]")


def training_data_description(text: str | None, names: Sequence[str]) -> str:
    """Return the description of the training data for the model file, by default their names."""
    return text or f"trained by the user on {', '.join(Path(name).name for name in names)}"


def open_network(name: str, seed: int) -> "ModelFile":
    """Open a model by name, or make one with random weights of `new:BACKBONE@SIDE`.

    Raises:
        ModelError: if there is no such model, or it is an export.
    """
    from vpr_dhe.errors import ModelError
    from vpr_dhe.features.extractor import load_extractor
    from vpr_dhe.models.exported_model import require_weights
    from vpr_dhe.records import Size
    from vpr_dhe.training.trainable_extractor import new_model

    if not name.startswith(_NEW):
        return require_weights(load_extractor(name).model_file)
    backbone, _, side = name.removeprefix(_NEW).partition("@")
    if not side.isdecimal():
        raise ModelError(f"{name!r} names no input side in pixels; write {_NEW}BACKBONE@SIDE, such as {_EXAMPLE}")
    return new_model(backbone, "gem", Size(int(side), int(side)), seed)


@dataclass(frozen=True)
class DataOptions:
    """Training data."""

    TITLE = "Training data"

    data: Annotated[
        list[str],
        typer.Argument(
            help="Folders of photos or place data sets; synthetic-town for generated streets.",
            callback=existing_training_data,
        ),
    ]
    split: Annotated[str | None, typer.Option(help="Split of data sets with splits. [train]")] = None
    radius_m: Annotated[
        float | None, typer.Option(min=0, help="Maximum distance of positives in metres. [10 with splits]")
    ] = None
    heading_tolerance_deg: Annotated[
        float | None, typer.Option(min=0, max=180, help="Maximum difference in heading of positives.")
    ] = None
    textures: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER",
            help="Photos of facades for the fronts of synthetic-town. [painted fronts]",
            callback=existing_folder,
        ),
    ] = None
    training_data: Annotated[str | None, training_data_option("names of DATA")] = None

    @property
    def protocol(self) -> "Protocol":
        """Protocol that defines the positives of place data sets."""
        from vpr_dhe.datasets import Protocol

        return Protocol(split=self.split, radius_m=self.radius_m, heading_tolerance_deg=self.heading_tolerance_deg)

    @property
    def description(self) -> str:
        """Description of the training data for the model file."""
        textures = [] if self.textures is None else [str(self.textures)]
        return training_data_description(self.training_data, [*self.data, *textures])

    @property
    def only_folder(self) -> Path:
        """Folder of the one data set that triplets are mined in.

        Raises:
            BadInputError: if several are given, or photos for the fronts of generated towns.
        """
        from vpr_dhe.errors import BadInputError

        if self.textures is not None:
            raise BadInputError(
                "--textures is for synthetic-town, and triplets are mined in one data set; leave it out"
            )
        if len(self.data) != 1:
            raise BadInputError(f"{len(self.data)} data sets were given, and triplets are mined in one; give one")
        return Path(self.data[0])


@dataclass(frozen=True)
class PhotosOptions:
    """Unlabelled photos to train on."""

    TITLE = "Training data"

    photos: Annotated[
        list[Path],
        typer.Argument(help="Folders of unlabelled photos; subfolders are included.", callback=existing_folders),
    ]
    training_data: Annotated[str | None, training_data_option("names of PHOTOS", "photos")] = None

    @property
    def description(self) -> str:
        """Description of the training data for the model file."""
        return training_data_description(self.training_data, [str(folder) for folder in self.photos])


@dataclass(frozen=True)
class ResultOptions:
    """Model file to write without a run, and what it holds besides weights."""

    TITLE = "Result"

    out: Annotated[Path, typer.Option(help="Model file to write, ending in .safetensors.")]
    name: Annotated[str | None, typer.Option(help="Name of the result. [that of MODEL]")] = None
    licence: Annotated[str | None, typer.Option(help="Licence of the result. [that of MODEL]")] = None
    half: Annotated[bool, typer.Option("--half", help="Store weights in half precision.")] = False


@dataclass(frozen=True)
class LoopOptions:
    """Length, device, precision and folder of a run."""

    TITLE = "Run"

    out: Annotated[Path, typer.Option(metavar="FOLDER", help="Folder of the run, for its state, logs and best model.")]
    steps: StepsOption = 50_000
    seed: Annotated[int, typer.Option(min=0, help="Seed of initial weights, data and their order.")] = 0
    validate_every: Annotated[int, typer.Option(min=1, help="Steps between validations.")] = 1000
    save_every: Annotated[int, typer.Option(min=1, help="Steps between saved states.")] = 500
    log_every: Annotated[int, typer.Option(min=1, help="Steps averaged into one line of the logs.")] = 50
    workers: Annotated[int, typer.Option(min=0, help="Number of processes that prepare batches.")] = 0
    max_minutes: Annotated[
        float | None,
        typer.Option(min=0, help="Save and stop after this time, preparation included; the run can be continued."),
    ] = None
    precision: Annotated[TrainingPrecision, typer.Option(help="Precision of matrix products.")] = FP32
    device: DeviceOption = AUTO

    @cached_property
    def deadline(self) -> "Deadline":
        """End of the time of --max-minutes, which begins when this is first read."""
        from vpr_dhe.training.deadline import Deadline

        return Deadline(self.max_minutes)

    def pick_device(self) -> str:
        """Resolve the device, and check that it can train with these options.

        Raises:
            MissingExtraError: if the extra `train` is not installed.
            BadInputError: if the device does not support the precision.
        """
        from vpr_dhe.errors import BadInputError
        from vpr_dhe.runtime.extras import require_extra

        require_extra("train")
        device = pick_device(self.device)
        if device == "cpu" and self.precision == "fp16":
            raise BadInputError("--precision fp16 needs a GPU; use bf16 or fp32")
        # Each process that torchrun or accelerate starts has a GPU of its own.
        number = os.environ.get("LOCAL_RANK")
        return f"cuda:{number}" if device == "cuda" and number else device

    def settings(self, *, on_cpu: bool) -> "LoopSettings":
        """Build the settings of the loop."""
        from vpr_dhe.training.loop import LoopSettings

        return LoopSettings(
            steps=self.steps,
            seed=self.seed,
            validate_every=self.validate_every,
            save_every=self.save_every,
            log_every=self.log_every,
            precision=self.precision,
            on_cpu=on_cpu,
            workers=self.workers,
            max_minutes=self.max_minutes,
        )


@dataclass(frozen=True)
class NetworkOptions:
    """Network to train, and its trained blocks."""

    TITLE = "Network"

    model: Annotated[
        str,
        typer.Option(help="Network to start from: a model file, timm:NAME, or new:BACKBONE@SIDE for random weights."),
    ]
    first_trained_block: Annotated[
        int | None, typer.Option(min=0, help="First transformer block to train; earlier ones stay frozen. [all]")
    ] = None

    def open(self, seed: int) -> "ModelFile":
        """Open a trainable model, or make one with random weights.

        Raises:
            ModelError: if there is no such model.
        """
        return open_network(self.model, seed)


@dataclass(frozen=True)
class HeadOptions:
    """Model whose head is trained on its frozen extractor; the default has the 24 x 24 cells that a DHE head takes."""

    TITLE = "Network"

    model: Annotated[
        str,
        typer.Option(
            help="Model to start from; see `vpr-dhe models`.", callback=known_model, autocompletion=complete_model
        ),
    ] = SIFT_VLAD
    new_head: Annotated[
        bool, typer.Option("--new-head", help="Start from random weights instead of the model's head.")
    ] = False

    def load(self, device: str) -> "Extractor":
        """Load the extractor, with the initial head in its model file.

        Raises:
            ModelError: if there is no such model.
        """
        from vpr_dhe.features.extractor import load_extractor
        from vpr_dhe.models.exported_model import require_weights

        extractor = load_extractor(self.model, device)
        if self.new_head:
            extractor.model_file = require_weights(extractor.model_file).without_head()
        return extractor


@dataclass(frozen=True)
class MiningOptions:
    """Mining of the negatives of triplets."""

    TITLE = "Mining"

    mining: Annotated[Mining, typer.Option(help="Method of mining negatives of triplets.")] = Mining.partial
    negatives: Annotated[int, typer.Option(min=1, help="Number of negatives per triplet.")] = 10

    def settings(self) -> "MiningSettings":
        """Build the settings of the miner."""
        from vpr_dhe.training.mining import MiningSettings

        return MiningSettings(self.mining, negatives=self.negatives)
