"""Checkpoints of CosPlace and EigenPlaces, shaped like the published ones, imported; the networks are torchvision's."""

import numpy as np
import pytest
import torch
import torchvision
from PIL import Image
from torch import nn
from torch.nn.functional import normalize

from vpr_dhe.errors import ModelError
from vpr_dhe.features.extractor import load_extractor
from vpr_dhe.images.loading import load_image
from vpr_dhe.models.importers import import_checkpoints
from vpr_dhe.records import Size

MEAN, STD = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])


def published_backbone(name: str) -> nn.Sequential:
    """The backbone as its authors cut it, with statistics of its norms unlike those of a new one."""
    torch.manual_seed(0)
    if name == "vgg16":  # without its classifier, which takes seconds to initialise
        cut = torchvision.models.vgg.make_layers(torchvision.models.vgg.cfgs["D"])[:-2]
    else:
        cut = nn.Sequential(*torchvision.models.get_model(name, weights=None).children())[:-2]
    for module in cut.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.uniform_(-0.1, 0.1)
            module.running_var.uniform_(0.5, 1.5)
    return cut.eval()


def published_state(name: str, dimension: int) -> dict:
    backbone = published_backbone(name)
    width = 512 if name in ("resnet18", "resnet34", "vgg16") else 2048
    state = {f"backbone.{key}": value for key, value in backbone.state_dict().items()}
    linear = {"weight": torch.randn(dimension, width), "bias": torch.randn(dimension)}
    return state | {"aggregation.1.p": torch.tensor([2.6])} | {f"aggregation.3.{key}": x for key, x in linear.items()}


@pytest.mark.parametrize(("name", "dimension"), [("resnet18", 32), pytest.param("vgg16", 64, marks=pytest.mark.slow)])
def test_descriptors_are_those_of_the_formula(saved, tmp_path, name, dimension):
    state = published_state(name, dimension)
    model = import_checkpoints("cosplace", [saved("published.pth", state)])
    model.save(tmp_path / "model.safetensors")
    photo = np.random.default_rng(1).integers(0, 256, (70, 100, 3), dtype=np.uint8)
    Image.fromarray(photo).save(tmp_path / "photo.png")
    extractor = load_extractor(str(tmp_path / "model.safetensors"), runtime="torch")
    (features,) = extractor.extract([load_image(tmp_path / "photo.png")])

    pixels = (torch.tensor(photo) / 255 - MEAN) / STD
    with torch.no_grad():
        maps = published_backbone(name)(pixels.permute(2, 0, 1)[None])
    cells = normalize(maps, dim=1).clamp(min=1e-6).pow(2.6)
    pooled = cells.mean(dim=(2, 3)).pow(1 / 2.6)
    expected = normalize(pooled @ state["aggregation.3.weight"].T + state["aggregation.3.bias"], dim=1)[0]
    assert float((features.global_descriptor - expected).norm()) < 1e-4
    assert model.name == f"cosplace-{name}-{dimension}"


@pytest.mark.parametrize("name", ["resnet34", "resnet50", "resnet101", "resnet152"])
def test_backbones_are_read_off_the_shapes(saved, name):
    with torch.device("meta"):
        state = published_state(name, 128)
    made = {key: torch.zeros(()).expand(value.shape) for key, value in state.items()}
    model = import_checkpoints("eigenplaces", [saved("published.pth", made)])
    assert (model.name, model.architecture.backbone) == (f"eigenplaces-{name}-128", f"torchvision:{name}")
    assert model.preprocessing.size == Size(512, 512)
    assert model.licence.startswith("MIT")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda state: state.pop("backbone.7.1.bn2.weight"), r"lacks backbone\.layer4\.1\.bn2\.weight"),
        (lambda state: state.update({"classifier.weight": torch.zeros(3)}), r"unexpected classifier\.weight"),
        (
            lambda state: state.update({"aggregation.3.bias": torch.zeros(3)}),
            r"aggregator\.linear\.bias of shape \(3,\)",
        ),
        (lambda state: state.update({"backbone.4.9.conv1.weight": torch.zeros(3)}), "neither VGG-16 nor a ResNet"),
        (lambda state: state.pop("aggregation.1.p"), "not a checkpoint of cosplace"),
    ],
)
def test_other_checkpoints_are_refused(saved, change, said):
    state = published_state("resnet18", 32)
    change(state)
    with pytest.raises(ModelError, match=said):
        import_checkpoints("cosplace", [saved("other.pth", state)])
