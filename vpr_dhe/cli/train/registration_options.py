"""Options that the stages of registration networks share."""

from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vpr_dhe.cli.train.options import LoopOptions, StepsOption, ValidationPairsOption
from vpr_dhe.cli.train.running import train_stage

if TYPE_CHECKING:
    from vpr_dhe.training.registration.aligned import AlignedData
    from vpr_dhe.training.registration.stage import RegistrationStage, RegistrationTraining
    from vpr_dhe.verification.estimators.cross_modal.registration.networks import RegistrationSettings


class NetworkChoice(StrEnum):
    """Which network registers the images."""

    iterative = "iterative"
    direct = "direct"
    flow = "flow"


class EncoderChoice(StrEnum):
    """The encoder that AltO learns beside its registration network; published: resnet34."""

    resnet34 = "resnet34"
    resnet18 = "resnet18"


class TransferChoice(StrEnum):
    """Which network repaints one modality as the other; published: swin."""

    swin = "swin"
    convolutional = "convolutional"


@dataclass(frozen=True)
class RegistrationLoopOptions(LoopOptions):
    """As published, 120,000 steps."""

    steps: StepsOption = 120_000
    start: Annotated[
        Path | None,
        typer.Option(
            help="Network file of iterative, alto or sshnet-d whose registration network is learned on from. "
            "[random weights]"
        ),
    ] = None

    def train(self, stage: "RegistrationStage", where: str) -> None:
        """Train a stage on a device, from the start that was asked for.

        Raises:
            ModelError: if the file to start from is missing, damaged, or of another shape.
        """
        from vpr_dhe.models.network_file import load_network

        if self.start is not None:
            stage.start_from(load_network(self.start))
        train_stage(stage, self, where)


@dataclass(frozen=True)
class AlignedDataOptions:
    """What is learned from."""

    data: Annotated[
        Path,
        typer.Argument(
            help="Folder of pairs: folders a and b of aligned images, or pairs.csv; its parts train and val, if it "
            "has them."
        ),
    ]
    training_data: Annotated[
        str | None,
        typer.Option(help="What the images are and their licences, for the network file. [the name of DATA]"),
    ] = None
    validation_pairs: ValidationPairsOption = 64

    def training(
        self, loop: RegistrationLoopOptions, batch_size: int, learning_rate: float, decay: float = 0.85
    ) -> "RegistrationTraining":
        """What the stage is told, besides data, shape and losses."""
        from vpr_dhe.training.registration.stage import RegistrationTraining

        return RegistrationTraining(
            steps=loop.steps,
            batch_size=batch_size,
            learning_rate=learning_rate,
            decay=decay,
            seed=loop.seed,
            validation_pairs=self.validation_pairs,
        )

    @property
    def description(self) -> str:
        """For the network file: what the user says of the data, or what can be said without being told."""
        return self.training_data or f"trained by the user on {self.data.resolve().name}"

    def open(self, network: "RegistrationSettings", *, unpaired: bool = False) -> "AlignedData":
        """Open the pairs, or single photos, at the size that a network learns from, and say which they are.

        Raises:
            DatasetError: if there are none.
        """
        from vpr_dhe.cli.common import say
        from vpr_dhe.training.registration.aligned import open_aligned
        from vpr_dhe.training.registration.deformed_patches import photo_side_px
        from vpr_dhe.training.registration.own_pairs import open_own_pairs

        opened = (open_own_pairs if unpaired else open_aligned)(self.data, photo_side_px(network.side_px))
        say(f"to learn from: {opened.learned.description}; to validate with: {opened.validation.description}")
        return opened


@dataclass(frozen=True)
class IterativeNetworkOptions:
    """The shape of the iterative network."""

    iterations: Annotated[int, typer.Option(min=1, help="Corrections of the estimate.")] = 6
    scales: Annotated[int, typer.Option(min=1, max=2, help="With 2, more corrections on finer features.")] = 1
    width: Annotated[int, typer.Option(min=8, help="Channels of the first layers, a multiple of 8; published: 64.")] = (
        64
    )
    side_px: Annotated[
        int,
        typer.Option(
            min=32,
            help="Side that images are resized to, a power of two; published: 128.",
        ),
    ] = 128

    def settings(self) -> "RegistrationSettings":
        """The shape as the network is built from it.

        Raises:
            BadInputError: if the side is no power of two.
        """
        from vpr_dhe.errors import BadInputError
        from vpr_dhe.verification.estimators.cross_modal.registration.networks import RegistrationSettings

        if self.side_px.bit_count() != 1:
            raise BadInputError(f"--side-px is {self.side_px}; expected a power of two, such as 64 or 128")
        return RegistrationSettings(
            side_px=self.side_px, width=self.width, iterations=self.iterations, scales=self.scales
        )


@dataclass(frozen=True)
class RegistrationNetworkOptions(IterativeNetworkOptions):
    """Which network, and the shape of the iterative one."""

    network: Annotated[
        NetworkChoice,
        typer.Option(help="iterative; direct regression by a ResNet-34; or RAFT and a homography of its flow."),
    ] = NetworkChoice.iterative

    def settings(self) -> "RegistrationSettings":
        """The network as it is built."""
        from dataclasses import replace

        return replace(super().settings(), network=self.network.value)
