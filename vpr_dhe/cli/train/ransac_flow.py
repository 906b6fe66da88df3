"""`vpr-dhe train ransac-flow`: fine network of the verifier ransac-flow."""

from enum import StrEnum
from typing import Annotated

import typer

from vpr_dhe.cli.shared.progress import print_stderr
from vpr_dhe.cli.train.options import DataOptions, LoopOptions, ValidationPairsOption
from vpr_dhe.cli.train.running import train_stage
from vpr_dhe.models.names import SIFT_VLAD

NAME = "ransac-flow"
EXAMPLES = """
vpr-dhe train ransac-flow photos --out run
"""
_VIEW_PX = 384


class Layout(StrEnum):
    """Architectures of the fine network."""

    published = "published"
    earlier = "earlier"


def run(
    data: DataOptions,
    loop: LoopOptions,
    model: Annotated[str, typer.Option(help="Model whose local maps align pairs coarsely.")] = SIFT_VLAD,
    warmup_steps: Annotated[int, typer.Option(min=0, help="First steps, on warps with known flow.")] = 5000,
    cycle_from: Annotated[int, typer.Option(min=0, help="First step with the cycle-consistency loss.")] = 30_000,
    matchability_from: Annotated[int, typer.Option(min=0, help="First step with the matchability loss.")] = 40_000,
    batch_size: Annotated[int, typer.Option(min=1, help="Pairs per step and process.")] = 16,
    learning_rate: Annotated[float, typer.Option(min=0, help="Learning rate of Adam.")] = 2e-4,
    matchability_weight: Annotated[
        float,
        typer.Option(min=0, help="Weight of the matchability loss; published: 0.01."),
    ] = 0.5,
    image_px: Annotated[int, typer.Option(min=64, help="Shorter side of resized images.")] = 240,
    crop_px: Annotated[int, typer.Option(min=64, help="Side of crops, a multiple of 8.")] = 224,
    min_inliers: Annotated[
        int,
        typer.Option(min=4, help="Minimum number of inliers of the coarse alignment; pairs with fewer are left out."),
    ] = 16,
    validation_pairs: ValidationPairsOption = 64,
    layout: Annotated[
        Layout, typer.Option(help="Architecture: that of the authors' code, or that of earlier versions.")
    ] = Layout.published,
) -> None:
    """Train the fine network of the verifier ransac-flow on coarsely aligned pairs, without labels."""
    from vpr_dhe.errors import BadInputError
    from vpr_dhe.features.extractor import load_extractor
    from vpr_dhe.records import Size
    from vpr_dhe.training.ransac_flow.coarse_crops import CropSettings
    from vpr_dhe.training.ransac_flow.stage import RansacFlowStage, RansacFlowTraining
    from vpr_dhe.training.sources import open_training_data
    from vpr_dhe.verification.estimators.ransac_flow.network import PUBLISHED, STRIDE_PX, FineSettings

    if crop_px % STRIDE_PX or crop_px > image_px:
        raise BadInputError(
            f"--crop-px is {crop_px}; expected a multiple of {STRIDE_PX} of at most --image-px, which is {image_px}"
        )
    device = loop.pick_device()
    opened = open_training_data(data.data, Size(_VIEW_PX, _VIEW_PX), data.protocol, textures=data.textures)
    print_stderr(f"warm-up: {opened.warps.description}; then: {opened.positives.description}")
    settings = RansacFlowTraining(
        warmup_steps=warmup_steps,
        cycle_from=cycle_from,
        matchability_from=matchability_from,
        batch_size=batch_size,
        learning_rate=learning_rate,
        matchability_weight=matchability_weight,
        crops=CropSettings(image_px=image_px, crop_px=crop_px, min_inliers=min_inliers),
        network=PUBLISHED if layout is Layout.published else FineSettings(),
        seed=loop.seed,
        validation_pairs=validation_pairs,
    )
    stage = RansacFlowStage(load_extractor(model), opened, settings, training_data=data.description)
    train_stage(stage, loop, device)
