"""Encoders of AltO's losses: layers of a ResNet with random weights, or of the default model with pretrained weights.

Both encode cells of 4 x 4 pixels, which a projector merges into cells of 8 x 8.
"""

from typing import Any, NamedTuple

import timm
from jaxtyping import Float
from torch import Tensor, nn

from vpr_dhe.features.backbones.timm_cnn import PREFIX, TruncatedTimmCnn
from vpr_dhe.models.catalogue import open_model
from vpr_dhe.models.names import LITE_VLAD

# The stages of EfficientNet-Lite0 at stride 4, and the next one, at stride 8.
_ENCODING_STAGES, _PROJECTING_STAGES = 2, 1


class Encoder(nn.Module):
    """Layers that encode cells of 4 x 4 pixels."""

    def __init__(self, *layers: nn.Module) -> None:
        super().__init__()
        self.layers = nn.Sequential(*layers)

    def forward(self, images: Float[Tensor, "images 3 height width"]) -> Float[Tensor, "images channels rows columns"]:
        """Encode RGB images in [0, 1]."""
        return self.layers(2 * images - 1)


class Projector(nn.Module):
    """Layer that projects maps to cells of twice the side."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, maps: Float[Tensor, "images channels rows columns"]) -> Float[Tensor, "images dimension _ _"]:
        """Project maps."""
        return self.layer(maps)


class LossNetworks(NamedTuple):
    """Networks that only training needs."""

    encoder: Encoder
    projector: Projector


def build_loss_networks(name: str) -> LossNetworks:
    """Build encoder and projector from the pretrained `lite-vlad`, or from a ResNet of timm with random weights."""
    return _of_default_model() if name == LITE_VLAD else _of_resnet(name)


def _of_resnet(name: str) -> LossNetworks:
    """Split a ResNet, without max-pooling, into its first two layers and its third (128, 256 channels in ResNet-34)."""
    resnet: Any = timm.create_model(name, pretrained=False)
    return LossNetworks(
        Encoder(resnet.conv1, resnet.bn1, resnet.act1, resnet.layer1, resnet.layer2), Projector(resnet.layer3)
    )


def _of_default_model() -> LossNetworks:
    """First stages of `lite-vlad`, pretrained on ImageNet: 24 and 40 channels."""
    model = open_model(LITE_VLAD)
    architecture = model.architecture
    assert architecture.blocks is not None
    network = TruncatedTimmCnn(architecture.backbone.removeprefix(PREFIX), architecture.blocks)
    network.load_state_dict(model.part("backbone"))
    encoding = network.blocks[:_ENCODING_STAGES]
    projecting = network.blocks[_ENCODING_STAGES : _ENCODING_STAGES + _PROJECTING_STAGES]
    return LossNetworks(Encoder(network.conv_stem, network.bn1, *encoding), Projector(projecting))
