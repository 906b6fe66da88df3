"""`vpr-dhe train ransac-flow`: fine network of the verifier ransac-flow."""

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

from vpr_dhe.cli.shared.progress import print_stderr
from vpr_dhe.cli.train.options import DataOptions, LoopOptions, ValidationPairsOption
from vpr_dhe.cli.train.running import train_stage
from vpr_dhe.models.names import SIFT_VLAD

if TYPE_CHECKING:
    from vpr_dhe.training.ransac_flow.coarse_crops import CropSettings

NAME = "ransac-flow"
EXAMPLES = """
vpr-dhe train ransac-flow photos --out run
"""
_VIEW_PX = 384


class Layout(StrEnum):
    """Architectures of the fine network."""

    published = "published"
    earlier = "earlier"


@dataclass(frozen=True)
class PhaseOptions:
    """Phases of the training, and its steps."""

    warmup_steps: Annotated[int, typer.Option(min=0, help="First steps, on warps with known flow.")] = 5000
    cycle_from: Annotated[int, typer.Option(min=0, help="First step with the cycle-consistency loss.")] = 30_000
    matchability_from: Annotated[int, typer.Option(min=0, help="First step with the matchability loss.")] = 40_000
    batch_size: Annotated[int, typer.Option(min=1, help="Pairs per step and process.")] = 16
    learning_rate: Annotated[float, typer.Option(min=0, help="Learning rate of Adam.")] = 2e-4
    matchability_weight: Annotated[
        float,
        typer.Option(min=0, help="Weight of the matchability loss; published: 0.01."),
    ] = 0.5
    validation_pairs: ValidationPairsOption = 64


@dataclass(frozen=True)
class CropOptions:
    """Crops of coarsely aligned pairs."""

    image_px: Annotated[int, typer.Option(min=64, help="Shorter side of resized images.")] = 240
    crop_px: Annotated[int, typer.Option(min=64, help="Side of crops, a multiple of 8.")] = 224
    min_inliers: Annotated[
        int,
        typer.Option(min=4, help="Minimum number of inliers of the coarse alignment; pairs with fewer are left out."),
    ] = 16

    def settings(self) -> "CropSettings":
        """Build the parameters of crops.

        Raises:
            BadInputError: if crops do not fit the network or the images.
        """
        from vpr_dhe.errors import BadInputError
        from vpr_dhe.training.ransac_flow.coarse_crops import CropSettings
        from vpr_dhe.verification.estimators.ransac_flow.network import STRIDE_PX

        if self.crop_px % STRIDE_PX or self.crop_px > self.image_px:
            raise BadInputError(
                f"--crop-px is {self.crop_px}; expected a multiple of {STRIDE_PX} of at most --image-px, which is "
                f"{self.image_px}"
            )
        return CropSettings(**vars(self))


def run(
    data: DataOptions,
    loop: LoopOptions,
    phases: PhaseOptions,
    crops: CropOptions,
    model: Annotated[str, typer.Option(help="Model whose local maps align pairs coarsely.")] = SIFT_VLAD,
    layout: Annotated[
        Layout, typer.Option(help="Architecture: that of the authors' code, or that of earlier versions.")
    ] = Layout.published,
) -> None:
    """Train the fine network of the verifier ransac-flow on coarsely aligned pairs, without labels."""
    from vpr_dhe.features.extractor import load_extractor
    from vpr_dhe.records import Size
    from vpr_dhe.training.ransac_flow.stage import RansacFlowStage, RansacFlowTraining
    from vpr_dhe.training.sources import open_training_data
    from vpr_dhe.verification.estimators.ransac_flow.network import PUBLISHED, FineSettings

    crop_settings = crops.settings()
    device = loop.pick_device()
    opened = open_training_data(data.data, Size(_VIEW_PX, _VIEW_PX), data.protocol, textures=data.textures)
    print_stderr(f"warm-up: {opened.warps.description}; then: {opened.positives.description}")
    settings = RansacFlowTraining(
        **vars(phases),
        crops=crop_settings,
        network=PUBLISHED if layout is Layout.published else FineSettings(),
        seed=loop.seed,
    )
    stage = RansacFlowStage(load_extractor(model), opened, settings, training_data=data.description)
    train_stage(stage, loop, device)
