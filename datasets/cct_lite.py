"""Prepare the training images of the bundled model `cct-lite`, and make its file from the trained model.

    python datasets/cct_lite.py photos DATA --out PHOTOS
    vpr-dhe train distillation PHOTOS/training --validation PHOTOS/validation --out run
    python datasets/cct_lite.py bundle run/best.safetensors --out cct-lite.safetensors

DATA contains the folders of `_SHARES`. Scenes held out by `benchmarks/splits.toml` are linked into PHOTOS/validation,
all others into PHOTOS/training, together with views of generated towns. The bundled file contains only the backbone, in
half precision, because the aggregator and the local head are those of `lite-vlad`.
"""

import argparse
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from held_out import link_images
from saving import exit_code_of

from vpr_dhe.models.model_file import load_model
from vpr_dhe.models.names import CCT_LITE
from vpr_dhe.synthetic_town.town import SyntheticTown, write_town

# Every n-th image is used, because neighbouring frames of a walk are nearly the same.
_SHARES = {
    "facades": 1,
    "hdri_views": 1,
    "ie_tower": 1,
    "ie_tower_dense": 3,
    "opensfm": 1,
    "brighton_beach": 1,
    "aerial_open": 1,
    "rtabmap_corridor": 1,
}
_TOWN_SEEDS, _QUERIES_PER_TOWN = range(3000, 3004), 50


def prepare_photos(data: Path, out: Path) -> None:
    """Link the photos and render the towns."""
    for side, held_out in (("training", False), ("validation", True)):
        link_images(data, out / side, _SHARES, held_out=held_out, shares=_SHARES)
    render_towns(out)


def render_towns(out: Path) -> None:
    """Render the towns that do not exist yet."""
    for seed in _TOWN_SEEDS:
        folder = out / "training" / f"town-{seed}"
        if not folder.exists():
            town = SyntheticTown(seed)
            cameras = town.database_cameras()
            write_town(folder, town, cameras, town.query_cameras(_QUERIES_PER_TOWN, seed, cameras), seed=seed)


def bundle(trained: Path, out: Path) -> None:
    """Write the backbone of a trained student as the bundled file."""
    model = load_model(trained)
    backbone = {name: value for name, value in model.tensors.items() if name.startswith("backbone.")}
    replace(model, name=CCT_LITE, tensors=backbone).in_half_precision().save(out)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    photos = commands.add_parser("photos", help="link the photos")
    photos.add_argument("data", type=Path, help=f"folder that holds {', '.join(_SHARES)}")
    photos.add_argument("--out", type=Path, required=True, help="folder to link the photos in")
    bundled = commands.add_parser("bundle", help="make the file of the package")
    bundled.add_argument("model", type=Path, help="trained model")
    bundled.add_argument("--out", type=Path, required=True, help="model file to write, ending in .safetensors")
    options = parser.parse_args(arguments)
    if options.command == "photos":
        return exit_code_of(lambda: prepare_photos(options.data, options.out))
    return exit_code_of(lambda: bundle(options.model, options.out))


if __name__ == "__main__":
    sys.exit(main())
