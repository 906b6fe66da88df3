"""Options that stages of training share, each group with what is made of it.

A stage whose run is usually shorter, say, derives a group with another default.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeAlias

import typer

from vpr_dhe.cli.options import DeviceOption, pick_device
from vpr_dhe.models.names import DEFAULT_MODEL
from vpr_dhe.runtime.choices import AUTO, TrainingPrecision

if TYPE_CHECKING:
    from vpr_dhe.datasets import Protocol
    from vpr_dhe.features.base import Extractor
    from vpr_dhe.models.model_file import ModelFile
    from vpr_dhe.training.loop import LoopSettings
    from vpr_dhe.training.mining import MiningSettings

_NEW, _EXAMPLE = "new:", "new:cct_7_7x2_224@224"


class MiningChoice(StrEnum):
    """Where the negatives of triplets are looked for."""

    random = "random"
    partial = "partial"
    full = "full"


StepsOption: TypeAlias = Annotated[int, typer.Option(min=1, help="Steps in all; a finished run can be extended.")]
MinInliersOption: TypeAlias = Annotated[
    int, typer.Option(min=4, help="Pairs with fewer matches that agree are not learned from by REI.")
]
ValidationPairsOption: TypeAlias = Annotated[
    int, typer.Option(min=1, help="Held-out pairs that models are compared on, at most.")
]


def describe_data(said: str | None, names: Sequence[str]) -> str:
    """For the model file: what the user says of the data, or what can be said without being told."""
    return said or f"trained by the user on {', '.join(Path(name).name for name in names)}"


@dataclass(frozen=True)
class DataOptions:
    """What is learned from."""

    data: Annotated[
        list[str],
        typer.Argument(help="Folders of photos or of place data sets; synthetic-town for generated streets."),
    ]
    split: Annotated[str | None, typer.Option(help="Of data sets with splits. [train]")] = None
    radius_m: Annotated[
        float | None, typer.Option(min=0, help="Distance in metres up to which images are positives. [10 with splits]")
    ] = None
    heading_tolerance_deg: Annotated[
        float | None, typer.Option(min=0, max=180, help="Positives must also look the same way, up to this.")
    ] = None
    training_data: Annotated[
        str | None,
        typer.Option(help="What the images are and their licences, for the model file. [the names of DATA]"),
    ] = None

    @property
    def protocol(self) -> "Protocol":
        """What positives of place data sets are."""
        from vpr_dhe.datasets import Protocol

        return Protocol(split=self.split, radius_m=self.radius_m, heading_tolerance_deg=self.heading_tolerance_deg)

    @property
    def description(self) -> str:
        """For the model file: what the user says of the data, or what can be said without being told."""
        return describe_data(self.training_data, self.data)

    @property
    def only_folder(self) -> Path:
        """The one data set that triplets are mined in.

        Raises:
            BadInputError: if there are more.
        """
        from vpr_dhe.errors import BadInputError

        if len(self.data) != 1:
            raise BadInputError(f"triplets are mined in one data set, and {len(self.data)} were given")
        return Path(self.data[0])


@dataclass(frozen=True)
class LoopOptions:
    """How long, where, and what is kept."""

    out: Annotated[Path, typer.Option(help="Folder of the run: state, logs and best model.")]
    steps: StepsOption = 50_000
    seed: Annotated[int, typer.Option(min=0, help="Of initial weights, data and their order.")] = 0
    validate_every: Annotated[int, typer.Option(min=1, help="Steps between validations.")] = 1000
    save_every: Annotated[int, typer.Option(min=1, help="Steps that an interruption may cost.")] = 500
    log_every: Annotated[int, typer.Option(min=1, help="Steps whose mean is one line of the logs.")] = 50
    workers: Annotated[int, typer.Option(min=0, help="Processes that prepare batches.")] = 0
    max_minutes: Annotated[
        float | None, typer.Option(min=0, help="Save and stop after this long, to go on another time.")
    ] = None
    precision: Annotated[TrainingPrecision, typer.Option(help="Of matrix products.")] = "fp32"
    device: DeviceOption = AUTO

    def pick_device(self) -> str:
        """Choose the device, and find out before the work whether training is possible there.

        Raises:
            MissingExtraError: if the extra `train` is not installed.
            BadInputError: if the device cannot do what is asked for.
        """
        from vpr_dhe.errors import BadInputError
        from vpr_dhe.runtime.extras import require_extra

        require_extra("train")
        where = pick_device(self.device)
        if where == "cpu" and self.precision == "fp16":
            raise BadInputError("--precision fp16 needs a GPU; use bf16 or fp32")
        return where

    def settings(self, *, on_cpu: bool) -> "LoopSettings":
        """What the loop is told."""
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
    """Which network is trained, and how much of it."""

    model: Annotated[
        str,
        typer.Option(help="Network to start from: a model file, timm:NAME, or new:BACKBONE@SIDE for random weights."),
    ]
    first_trained_block: Annotated[
        int | None, typer.Option(min=0, help="Transformer blocks before this one are not trained. [all are]")
    ] = None

    def open(self, seed: int) -> "ModelFile":
        """Open a model that can be trained, or make one of random weights.

        Raises:
            ModelError: if there is no such model.
        """
        from vpr_dhe.errors import ModelError
        from vpr_dhe.features.extractor import load_extractor
        from vpr_dhe.models.exported_model import require_weights
        from vpr_dhe.records import Size
        from vpr_dhe.training.trainable_extractor import new_model

        if not self.model.startswith(_NEW):
            return require_weights(load_extractor(self.model).model_file)
        backbone, _, side = self.model.removeprefix(_NEW).partition("@")
        if not side.isdecimal():
            raise ModelError(
                f"{self.model!r} names no input side in pixels; write {_NEW}BACKBONE@SIDE, such as {_EXAMPLE}"
            )
        return new_model(backbone, "gem", Size(int(side), int(side)), seed)


@dataclass(frozen=True)
class HeadOptions:
    """Whose head is trained, on an extractor that stays as it is."""

    model: Annotated[str, typer.Option(help="Model to start from; see `vpr-dhe models`.")] = DEFAULT_MODEL
    new_head: Annotated[
        bool, typer.Option("--new-head", help="Begin with random weights, whatever head the model has.")
    ] = False

    def load(self, where: str) -> "Extractor":
        """Load the extractor, with the head to begin with in its model file.

        Raises:
            ModelError: if there is no such model.
        """
        from vpr_dhe.features.extractor import load_extractor
        from vpr_dhe.models.exported_model import require_weights

        extractor = load_extractor(self.model, where)
        if self.new_head:
            extractor.model_file = require_weights(extractor.model_file).without_head()
        return extractor


@dataclass(frozen=True)
class MiningOptions:
    """How negatives of triplets are found."""

    mining: Annotated[MiningChoice, typer.Option(help="Where negatives of triplets are looked for.")] = (
        MiningChoice.partial
    )
    negatives: Annotated[int, typer.Option(min=1, help="Of each triplet.")] = 10

    def settings(self) -> "MiningSettings":
        """What the miner is told."""
        from vpr_dhe.training.mining import Mining, MiningSettings

        return MiningSettings(Mining(self.mining.value), negatives=self.negatives)
