"""Convolutional networks of timm with random weights; nothing is downloaded."""

import numpy as np
import pytest
import timm
import torch

from vpr_dhe.errors import ModelError
from vpr_dhe.features.backbones import build_backbone
from vpr_dhe.features.backbones.timm_cnn import TimmCnn, timm_cnn_model_file
from vpr_dhe.features.extractor import load_extractor
from vpr_dhe.models.model_file import load_model
from vpr_dhe.records import Grid, Size


@pytest.fixture
def offline(monkeypatch):
    """Let timm fetch nothing."""
    create = timm.create_model
    monkeypatch.setattr(timm, "create_model", lambda name, **options: create(name, **options | {"pretrained": False}))


def test_cells_are_those_of_layer_3():
    backbone = TimmCnn("resnet18").eval()
    whole = timm.create_model("resnet18").eval()
    whole.load_state_dict(backbone.network.state_dict(), strict=False)
    images = torch.randn(2, 3, 64, 96)
    with torch.no_grad():
        tokens = backbone(images)
        maps = whole.layer1(whole.maxpool(whole.act1(whole.bn1(whole.conv1(images)))))
        expected = whole.layer3(whole.layer2(maps))
    assert (tokens.grid, tokens.class_token, backbone.dimension) == (Grid(4, 6), None, 256)
    assert torch.allclose(tokens.patches[1, 7], expected[1, :, 1, 1], atol=1e-5)


@pytest.mark.parametrize(
    ("name", "said"),
    [("resnet19", "did you mean"), ("vit_tiny_patch16_224", "no single map at a sixteenth")],
)
def test_no_such_network(name, said):
    with pytest.raises(ModelError, match=said):
        TimmCnn(name)


def test_inputs_and_cuts_that_do_not_fit():
    with pytest.raises(ModelError, match="cells of 16 pixels"):
        build_backbone("timm-cnn:resnet18", blocks=None, input_size=Size(100, 96))
    with pytest.raises(ModelError, match="no stages to be cut after"):
        build_backbone("timm-cnn:resnet18", blocks=2, input_size=Size(96, 96))


@pytest.mark.parametrize(("blocks", "dimension"), [(4, 80), (5, 112)])
def test_a_cut_keeps_the_stages_before_it_and_nothing_else(blocks, dimension):
    backbone = build_backbone("timm-cnn:tf_efficientnet_lite0", blocks=blocks, input_size=Size(64, 96)).eval()
    whole = timm.create_model("tf_efficientnet_lite0").eval()
    missing, unexpected = whole.load_state_dict(backbone.state_dict(), strict=False)
    assert not unexpected
    assert {name.split(".")[0] for name in missing if not name.startswith("blocks.")} == {
        "conv_head",
        "bn2",
        "classifier",
    }
    assert min(int(name.split(".")[1]) for name in missing if name.startswith("blocks.")) == blocks
    images = torch.randn(2, 3, 64, 96)
    with torch.no_grad():
        tokens = backbone(images)
        expected = whole.blocks[:blocks](whole.bn1(whole.conv_stem(images)))
    assert (tokens.grid, tokens.class_token, backbone.dimension) == (Grid(4, 6), None, dimension)
    torch.testing.assert_close(tokens.patches[1, 7], expected[1, :, 1, 1])


@pytest.mark.parametrize("blocks", [0, 3, 6, 8, -1])
def test_cuts_without_a_map_at_a_sixteenth(blocks):
    with pytest.raises(ModelError, match=f"after {blocks} of its 7 blocks"):
        build_backbone("timm-cnn:tf_efficientnet_lite0", blocks=blocks, input_size=Size(64, 64))


@pytest.mark.usefixtures("offline")
def test_fetched_weights_describe_images_and_become_a_model_file(tmp_path):
    extractor = load_extractor("timm-cnn:resnet18@70")
    image = np.random.default_rng(0).integers(0, 256, (80, 120, 3), np.uint8)
    (features,) = extractor.extract([image])
    assert (features.grid, features.local_map.shape) == (Grid(4, 4), (16, 256))
    timm_cnn_model_file("resnet18", size=Size(64, 64)).save(tmp_path / "cnn.safetensors")
    model = load_model(tmp_path / "cnn.safetensors")
    assert (model.architecture.aggregator, model.preprocessing.size) == ("gem", Size(64, 64))
    (again,) = load_extractor(str(tmp_path / "cnn.safetensors")).extract([image])
    assert again.global_descriptor.shape == (256,)
