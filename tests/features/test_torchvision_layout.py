"""Backbones in torchvision's key layout."""

import pytest
import torch
import torchvision

from vpr_dhe.errors import ModelError
from vpr_dhe.features.backbones import build_backbone
from vpr_dhe.records import Grid, Size


@pytest.mark.parametrize(("name", "stages", "width"), [("resnet18", 3, 256), ("resnet50", 2, 512)])
def test_a_cut_keeps_the_stages_before_it_and_nothing_else(name, stages, width):
    backbone = build_backbone(f"torchvision:{name}", blocks=stages, input_size=Size(64, 96)).eval()
    whole = torchvision.models.get_model(name, weights=None).eval()
    missing, unexpected = whole.load_state_dict(backbone.state_dict(), strict=False)
    assert not unexpected
    assert {key.split(".")[0] for key in missing} == {"fc", *(f"layer{n}" for n in range(stages + 1, 5))}
    images = torch.randn(2, 3, 64, 96)
    with torch.no_grad():
        tokens = backbone(images)
        maps = whole.maxpool(whole.relu(whole.bn1(whole.conv1(images))))
        for stage in range(1, stages + 1):
            maps = getattr(whole, f"layer{stage}")(maps)
    cell = 2 ** (stages + 1)
    assert (tokens.grid, backbone.dimension) == (Grid(64 // cell, 96 // cell), width)
    torch.testing.assert_close(tokens.patches, maps.flatten(2).mT)


def test_vgg_ends_before_its_last_activation():
    backbone = build_backbone("torchvision:vgg16", blocks=None, input_size=Size(48, 32)).eval()
    layers = torchvision.models.vgg.make_layers(torchvision.models.vgg.cfgs["D"])[:-2]
    layers.load_state_dict(backbone.features.state_dict())
    images = torch.randn(1, 3, 32, 48)
    with torch.no_grad():
        tokens = backbone(images)
        torch.testing.assert_close(tokens.patches, layers(images).flatten(2).mT)
    assert (tokens.grid, backbone.dimension) == (Grid(2, 3), 512)


@pytest.mark.parametrize(
    ("name", "blocks", "side", "said"),
    [
        ("torchvision:resnet19", None, 64, "no backbone 'torchvision:resnet19'"),
        ("torchvision:resnet18", 5, 64, "cannot be cut after 5 stages"),
        ("torchvision:resnet18", 0, 64, "cannot be cut after 0 stages"),
        ("torchvision:vgg16", 3, 64, "no stages"),
        ("torchvision:resnet18", None, 80, "cells of 32 pixels"),
        ("torchvision:vgg16", None, 72, "cells of 16 pixels"),
    ],
)
def test_what_does_not_fit(name, blocks, side, said):
    with pytest.raises(ModelError, match=said):
        build_backbone(name, blocks=blocks, input_size=Size(side, side))
