"""`vpr-dhe train sift-vlad`: vocabulary and projections of sift-vlad, from unlabelled images."""

from pathlib import Path
from typing import Annotated

import typer

from vpr_dhe.cli.common import progress_stages

NAME = "sift-vlad"


def run(
    images: Annotated[Path, typer.Argument(help="Folder of images; subfolders are included.")],
    out: Annotated[Path, typer.Option(help="Model file to write, ending in .safetensors.")],
    training_data: Annotated[str, typer.Option(help="Description and licences of the images, for the model file.")],
    seed: Annotated[int, typer.Option(min=0, help="Seed of views, samples and clusters.")] = 0,
) -> None:
    """Fit vocabulary and projections of sift-vlad to a folder of images, within minutes."""
    from vpr_dhe.images import list_images
    from vpr_dhe.models.weights_file import require_weights_path
    from vpr_dhe.training.sift_vlad import FitSettings, fit

    require_weights_path(out)
    paths = [images / name for name in list_images(images)]
    with progress_stages() as start_progress:
        model = fit(paths, FitSettings(seed=seed), training_data, start_progress=start_progress)
    model.save(out)
    print(f"{out}: {model.name}, fitted to {len(paths)} images")
