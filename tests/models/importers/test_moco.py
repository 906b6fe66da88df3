"""ResNet-50 of MoCo as the extractor of RANSAC-Flow's coarse stage."""

from argparse import Namespace

import numpy as np
import pytest
import torch
import torchvision
from torch.nn.functional import normalize

from vpr_dhe.errors import ModelError
from vpr_dhe.features.extractor import load_extractor
from vpr_dhe.models.importers import import_checkpoints

SIDE = 480


@pytest.fixture(scope="module")
def resnet():
    torch.manual_seed(0)
    return torchvision.models.resnet50(weights=None, num_classes=128).eval()


@pytest.mark.parametrize(
    ("wrapper", "prefix"),
    [("model", "module."), pytest.param("state_dict", "module.encoder_q.", marks=pytest.mark.slow)],
)
@torch.no_grad()
def test_cells_are_those_of_the_third_layer(resnet, saved, tmp_path, wrapper, prefix):
    """Of a whole checkpoint, options of the command line and what serves training only are left out."""
    state = {f"{prefix}{name}": value for name, value in resnet.state_dict().items()}
    if "encoder_q" in prefix:
        state |= {"module.queue": torch.zeros(128, 16), "module.encoder_k.conv1.weight": torch.zeros(64, 3, 7, 7)}
    path = saved("resnet50_moco.pth", {wrapper: state, "opt": Namespace(lr=0.03), "epoch": 200})
    model = import_checkpoints(None, [path])
    assert (model.name, model.architecture.blocks) == ("moco-resnet50", 3)
    model.save(tmp_path / "moco.safetensors")
    image = np.random.default_rng(0).integers(0, 256, (SIDE, SIDE, 3), np.uint8)
    (features,) = load_extractor(str(tmp_path / "moco.safetensors"), runtime="torch").extract([image])
    mean, std = (torch.tensor(part).view(3, 1, 1) for part in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    maps = ((torch.from_numpy(image).permute(2, 0, 1) / 255 - mean) / std)[None]
    for name in ("conv1", "bn1", "relu", "maxpool", "layer1", "layer2", "layer3"):
        maps = resnet.get_submodule(name)(maps)
    expected = normalize(maps)[0].flatten(1).T
    assert features.local_map.shape == expected.shape == (900, 1024)
    torch.testing.assert_close(features.local_map, expected, rtol=1e-3, atol=1e-5)


def test_other_networks_are_refused(saved, resnet):
    for content, message in (
        ({"fc.weight": torch.zeros(128, 2048)}, "not a ResNet-50 of MoCo"),
        ({name: value for name, value in resnet.state_dict().items() if "layer3.5" not in name}, "lacks layer3.5"),
    ):
        with pytest.raises(ModelError, match=message):
            import_checkpoints("moco", [saved("other.pth", content)])
