"""Checkpoints of MixVPR, shaped like the published ones, imported; the network is torchvision's."""

import numpy as np
import pytest
import torch
import torchvision
from PIL import Image
from torch.nn.functional import layer_norm, normalize, relu

from vpr_dhe.errors import ModelError
from vpr_dhe.features.extractor import load_extractor
from vpr_dhe.images.loading import load_image
from vpr_dhe.models.importers import import_checkpoints

MEAN, STD = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
CELLS = 400


def network():
    torch.manual_seed(0)
    whole = torchvision.models.resnet50(weights=None).eval()
    whole.layer4 = whole.fc = None
    return whole


def published_state(channels: int, rows: int) -> dict:
    state = {f"backbone.model.{key}": value for key, value in network().state_dict().items()}
    shapes = {"channel_proj": (channels, 1024), "row_proj": (rows, CELLS)}
    for index in range(4):
        shapes |= {f"mix.{index}.mix.{number}": (CELLS, CELLS) for number in (1, 3)}
    for name, (outputs, inputs) in shapes.items():
        state[f"aggregator.{name}.weight"] = torch.randn(outputs, inputs) / inputs**0.5
        state[f"aggregator.{name}.bias"] = torch.randn(outputs)
    for index in range(4):
        state |= {f"aggregator.mix.{index}.mix.0.{part}": torch.rand(CELLS) for part in ("weight", "bias")}
    return state


def published_descriptor(state: dict, photo: np.ndarray):
    resized = np.asarray(Image.fromarray(photo).resize((320, 320), Image.Resampling.BILINEAR))
    images = ((torch.tensor(resized) / 255 - MEAN) / STD).permute(2, 0, 1)[None]
    whole = network()
    maps = whole.maxpool(whole.relu(whole.bn1(whole.conv1(images))))
    x = whole.layer3(whole.layer2(whole.layer1(maps))).flatten(2)
    weights = {key.removeprefix("aggregator."): value for key, value in state.items()}
    for index in range(4):
        layer = {key.removeprefix(f"mix.{index}.mix."): value for key, value in weights.items()}
        mixed = layer_norm(x, (CELLS,), layer["0.weight"], layer["0.bias"])
        x = x + relu(mixed @ layer["1.weight"].T + layer["1.bias"]) @ layer["3.weight"].T + layer["3.bias"]
    x = x.permute(0, 2, 1) @ weights["channel_proj.weight"].T + weights["channel_proj.bias"]
    x = x.permute(0, 2, 1) @ weights["row_proj.weight"].T + weights["row_proj.bias"]
    return normalize(x.flatten(1), dim=1)[0]


@pytest.mark.slow
def test_descriptors_are_those_of_the_formula(saved, tmp_path):
    state = published_state(64, 2)
    model = import_checkpoints("mixvpr", [saved("published.ckpt", {"state_dict": state})])
    model.save(tmp_path / "model.safetensors")
    photo = np.random.default_rng(1).integers(0, 256, (300, 500, 3), dtype=np.uint8)
    Image.fromarray(photo).save(tmp_path / "photo.png")
    extractor = load_extractor(str(tmp_path / "model.safetensors"), runtime="torch")
    (features,) = extractor.extract([load_image(tmp_path / "photo.png")])
    with torch.no_grad():
        expected = published_descriptor(state, photo)
    assert float((features.global_descriptor - expected).norm()) < 1e-4
    assert (model.name, extractor.spec.dimension) == ("mixvpr-128", 128)
    assert "none given" in model.licence


def test_other_checkpoints_are_refused(saved):
    state = published_state(64, 2)
    state["aggregator.row_proj.bias"] = torch.zeros(5)
    with pytest.raises(ModelError, match=r"aggregator\.row_proj\.bias of shape \(5,\)"):
        import_checkpoints("mixvpr", [saved("other.ckpt", state)])
    with pytest.raises(ModelError, match="not a checkpoint of MixVPR"):
        import_checkpoints("mixvpr", [saved("other.ckpt", {"fc.weight": torch.zeros(3)})])
