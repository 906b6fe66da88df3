"""`vpr-dhe train vlad`: vocabulary and projection of a VLAD for any model, from unlabelled images."""

from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vpr_dhe.cli.shared.callbacks import existing_folder
from vpr_dhe.cli.shared.options import DeviceOption, pick_device
from vpr_dhe.cli.shared.progress import progress_stages
from vpr_dhe.cli.train.options import (
    ResultOptions,
    open_network,
    training_data_description,
    training_data_option,
)
from vpr_dhe.runtime.choices import AUTO

if TYPE_CHECKING:
    from vpr_dhe.models.model_file import ModelFile
    from vpr_dhe.training.vlad.settings import VladSettings

NAME = "vlad"
EXAMPLES = """
vpr-dhe train vlad timm:vit_small_patch14_dinov2 photos --out vlad.safetensors
"""


class AggregatorChoice(StrEnum):
    """VLADs to fit."""

    vlad = "vlad"
    netvlad = "netvlad"
    joint_vlad = "joint-vlad"


@dataclass(frozen=True)
class VladOptions:
    """VLAD to fit."""

    aggregator: Annotated[
        AggregatorChoice | None,
        typer.Option(
            help="Assignment to words: hard (vlad) or soft (netvlad); joint-vlad pools the "
            "descriptors of the model's local head besides. [netvlad; sift-vlad: vlad]"
        ),
    ] = None
    words: Annotated[int | None, typer.Option(min=1, help="Number of visual words. [64; joint-vlad: 8]")] = None
    bands: Annotated[int, typer.Option(min=1, help="Number of horizontal bands of the image.")] = 2
    dimension: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Dimension of the global descriptor; fewer than there are images. [512; joint-vlad: 768; "
            "sift-vlad: 384]",
        ),
    ] = None

    def settings(self, model: "ModelFile", seed: int) -> "VladSettings":
        """Build the settings of the fit for a model, by default those of its aggregator."""
        from vpr_dhe.training.vlad.fit import default_settings

        settings = default_settings(model, None if self.aggregator is None else self.aggregator.value)
        words, dimension = self.words or settings.words, self.dimension or settings.dimension
        return replace(settings, words=words, bands=self.bands, dimension=dimension, seed=seed)


@dataclass(frozen=True)
class VladResultOptions(ResultOptions):
    """Model file to write."""

    name: Annotated[str | None, typer.Option(help="Name of the result. [that of MODEL, with the aggregator]")] = None
    half: Annotated[
        bool, typer.Option("--half", help="Store weights in half precision; those of sift-vlad always are.")
    ] = False
    training_data: Annotated[str | None, training_data_option("name of IMAGES")] = None


def run(
    model: Annotated[
        str,
        typer.Argument(
            help="Model: sift-vlad, a model file, timm:NAME, timm-cnn:NAME, or new:BACKBONE@SIDE for random weights."
        ),
    ],
    images: Annotated[
        Path, typer.Argument(help="Folder of unlabelled images; subfolders are included.", callback=existing_folder)
    ],
    vlad: VladOptions,
    result: VladResultOptions,
    images_limit: Annotated[int, typer.Option(min=2, help="Maximum number of images, a sample of larger folders.")] = (
        2000
    ),
    seed: Annotated[int, typer.Option(min=0, help="Seed of random weights, samples, clusters and views.")] = 0,
    device: DeviceOption = AUTO,
) -> None:
    """Fit a VLAD of a model's local features to a folder of images; no labels or positions are needed."""
    import torch

    from vpr_dhe.models.weights_file import require_weights_path
    from vpr_dhe.training.vlad.fit import VladInfo, fit_vlad

    require_weights_path(result.out)
    description = training_data_description(result.training_data, [str(images)])
    start = open_network(model, seed)
    with progress_stages() as start_progress:
        fitted = fit_vlad(
            start,
            images,
            result.out,
            vlad.settings(start, seed),
            VladInfo(description, result.name, result.licence),
            torch.device(pick_device(device)),
            max_images=images_limit,
            half=result.half,
            start_progress=start_progress,
        )
    print(f"{result.out}: {fitted.model.name}, fitted to {fitted.images} images")
