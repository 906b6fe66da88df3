"""Groups of options that the stages of registration networks share."""

from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vpr_dhe.cli.train.options import LoopOptions, StepsOption, ValidationPairsOption, training_data_option
from vpr_dhe.cli.train.running import train_stage
from vpr_dhe.runtime.choices import RegistrationLayout, RegistrationNetworkName

if TYPE_CHECKING:
    from vpr_dhe.training.registration.aligned import AlignedData
    from vpr_dhe.training.registration.stage import RegistrationStage, RegistrationTraining
    from vpr_dhe.verification.estimators.cross_modal.registration.iterative import IterativeOptions
    from vpr_dhe.verification.estimators.cross_modal.registration.networks import RegistrationSettings


class EncoderChoice(StrEnum):
    """Encoders that AltO learns with its registration network; published: resnet34."""

    resnet34 = "resnet34"
    resnet18 = "resnet18"
    lite_vlad = "lite-vlad"


@dataclass(frozen=True)
class RegistrationLoopOptions(LoopOptions):
    """Loop options with 120,000 steps, as published, and initial weights."""

    steps: StepsOption = 120_000
    start: Annotated[
        Path | None,
        typer.Option(
            help="Network file of iterative, alto or sshnet-d with the initial registration network. [random weights]"
        ),
    ] = None

    def train(self, stage: "RegistrationStage", device: str) -> None:
        """Train a stage on a device, from the weights of --start.

        Raises:
            ModelError: if the network file is missing, damaged, or of another shape.
        """
        from vpr_dhe.models.network_file import load_network

        if self.start is not None:
            stage.start_from(load_network(self.start))
        train_stage(stage, self, device)


@dataclass(frozen=True)
class AlignedDataOptions:
    """Training data of aligned image pairs."""

    data: Annotated[
        Path,
        typer.Argument(
            help="Folder of pairs: folders a and b of aligned images, or pairs.csv, optionally below folders train "
            "and val."
        ),
    ]
    training_data: Annotated[str | None, training_data_option("name of DATA", file="network file")] = None
    validation_pairs: ValidationPairsOption = 64

    def training(
        self, loop: RegistrationLoopOptions, batch_size: int, learning_rate: float, decay: float = 0.85
    ) -> "RegistrationTraining":
        """Build the settings of a stage besides data, shape and losses."""
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
        """Description of the training data for the network file."""
        return self.training_data or f"trained by the user on {self.data.resolve().name}"

    def open(
        self, network: "RegistrationSettings", *, unpaired: bool = False, pairs: Path | None = None
    ) -> "AlignedData":
        """Open the pairs, or single photos, at the size that a network learns from, and print their description.

        With single photos, `pairs` are learned from too.

        Raises:
            DatasetError: if there are none.
        """
        from vpr_dhe.cli.shared.progress import print_stderr
        from vpr_dhe.training.registration.aligned import open_aligned
        from vpr_dhe.training.registration.deformed_patches import image_side_px
        from vpr_dhe.training.registration.self_pairs import open_self_pairs

        side_px = image_side_px(network.side_px)
        opened = open_self_pairs(self.data, side_px, pairs) if unpaired else open_aligned(self.data, side_px)
        print_stderr(f"training: {opened.training.description}; validation: {opened.validation.description}")
        return opened


@dataclass(frozen=True)
class IterativeNetworkOptions:
    """Shape of the iterative network."""

    iterations: Annotated[int, typer.Option(min=1, help="Number of corrections of the estimate.")] = 6
    scales: Annotated[
        int, typer.Option(min=1, max=2, help="Number of scales; 2 adds corrections on finer features.")
    ] = 1
    width: Annotated[int, typer.Option(min=8, help="Channels of the first layers, a multiple of 8; published: 64.")] = (
        64
    )
    side_px: Annotated[
        int,
        typer.Option(
            min=32,
            help="Side of resized images, a power of two; published: 128.",
        ),
    ] = 128
    layout: Annotated[
        RegistrationLayout | None,
        typer.Option(
            help="Architecture of the iterative network: as published, or of earlier versions. [that of --start, or of "
            "the method]",
            show_default=False,
        ),
    ] = None

    def settings(self, published: RegistrationLayout, start: Path | None) -> "RegistrationSettings":
        """Build the settings of the network, in the layout that is given, or that of the initial weights, if any.

        Raises:
            BadInputError: if the side is no power of two.
            ModelError: if the initial weights cannot be read.
        """
        from dataclasses import asdict

        from vpr_dhe.errors import BadInputError
        from vpr_dhe.verification.estimators.cross_modal.registration.networks import (
            LAYOUTS,
            RegistrationSettings,
            narrowed,
        )

        if self.side_px.bit_count() != 1:
            raise BadInputError(f"--side-px is {self.side_px}; expected a power of two, such as 64 or 128")
        if self.layout is None and start is not None:
            options = _options_of(start)
        else:
            options = narrowed(LAYOUTS[self.layout or published], self.width)
        return RegistrationSettings(
            side_px=self.side_px,
            width=self.width,
            iterations=self.iterations,
            scales=self.scales,
            **asdict(options),
        )


def _options_of(start: Path) -> "IterativeOptions":
    """Options of the network in a file."""
    from dataclasses import fields

    from vpr_dhe.models.network_file import load_network
    from vpr_dhe.verification.estimators.cross_modal.registration.iterative import IterativeOptions

    stored: dict[str, Any] = dict(load_network(start).settings)
    return IterativeOptions(**{one.name: stored[one.name] for one in fields(IterativeOptions) if one.name in stored})


@dataclass(frozen=True)
class RegistrationNetworkOptions(IterativeNetworkOptions):
    """Registration network, and the shape of the iterative one."""

    network: Annotated[
        RegistrationNetworkName,
        typer.Option(help="Network: iterative, direct regression by a ResNet-34, or a homography from RAFT flow."),
    ] = RegistrationNetworkName.iterative

    def settings(self, published: RegistrationLayout, start: Path | None) -> "RegistrationSettings":
        """Build the settings of the network; see `IterativeNetworkOptions`."""
        from dataclasses import replace

        return replace(super().settings(published, start), network=self.network.value)
