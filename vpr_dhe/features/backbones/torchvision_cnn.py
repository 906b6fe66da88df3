"""Backbones in torchvision's key layout, in which many retrieval networks are published: ResNets and VGG-16."""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from vpr_dhe.errors import ModelError
from vpr_dhe.features.base import Backbone, DenseTokens
from vpr_dhe.records import Grid, Size

PREFIX = "torchvision:"
RESNETS = ("resnet18", "resnet34", "resnet50", "resnet101", "resnet152")
VGG = "vgg16"
_STAGES = 4
_VGG_STRIDE_PX = 16


def build_torchvision(name: str, *, blocks: int | None, input_size: Size) -> Backbone:
    """Build `torchvision:NAME` with random weights; a ResNet is cut after `blocks` of its stages if given.

    Raises:
        ModelError: if there is no such network here, it cannot be cut so, or its cells do not divide the input size.
    """
    network = name.removeprefix(PREFIX)
    if network not in (*RESNETS, VGG):
        raise ModelError(f"there is no backbone {name!r}; choose one of {', '.join((*RESNETS, VGG))}")
    if network == VGG and blocks is not None:
        raise ModelError(f"{name} has no stages to be cut after; leave out the number of blocks")
    stages = _STAGES if blocks is None else blocks
    if not 1 <= stages <= _STAGES:
        raise ModelError(f"{name} cannot be cut after {blocks} stages; choose 1 to {_STAGES}")
    stride = _VGG_STRIDE_PX if network == VGG else 2 ** (stages + 1)
    if input_size.width % stride or input_size.height % stride:
        raise ModelError(
            f"{name} has cells of {stride} pixels, which do not divide an input of {input_size.width} x "
            f"{input_size.height}; choose multiples of them"
        )
    return Vgg16() if network == VGG else ResNet(network, stages)


class ResNet(Backbone):
    """ResNet of torchvision, cut after its first stages (`layer1` to `layer4`); it takes images of any size.

    Source: He et al., "Deep Residual Learning for Image Recognition", CVPR 2016.
    """

    convolutional = True

    def __init__(self, name: str, stages: int) -> None:
        super().__init__()
        import torchvision

        # Typed Any, because torchvision's networks declare no layers.
        whole: Any = torchvision.models.get_model(name, weights=None)
        self.conv1: Any = whole.conv1
        self.bn1: Any = whole.bn1
        self.stages = [f"layer{number}" for number in range(1, stages + 1)]
        for stage in self.stages:
            setattr(self, stage, getattr(whole, stage))
        last = getattr(whole, self.stages[-1])[-1]
        self.dimension = (last.conv3 if hasattr(last, "conv3") else last.conv2).out_channels

    def forward(self, images: Float[Tensor, "batch 3 height width"]) -> DenseTokens:
        """Compute one token per cell of the map; there is no class token."""
        maps = nn.functional.max_pool2d(torch.relu(self.bn1(self.conv1(images))), 3, stride=2, padding=1)
        for stage in self.stages:
            maps = getattr(self, stage)(maps)
        return _tokens(maps)


class Vgg16(Backbone):
    """VGG-16 of torchvision up to its last convolution, before that one's ReLU; it takes images of any size.

    Source: Simonyan and Zisserman, "Very Deep Convolutional Networks for Large-Scale Image Recognition", ICLR 2015.
    """

    convolutional = True
    dimension = 512

    def __init__(self) -> None:
        super().__init__()
        import torchvision

        vgg = torchvision.models.vgg
        # Made without the classifier, whose weights take seconds to initialise.
        self.features = vgg.make_layers(vgg.cfgs["D"])[:-2]

    def forward(self, images: Float[Tensor, "batch 3 height width"]) -> DenseTokens:
        """Compute one token per cell of the map; there is no class token."""
        return _tokens(self.features(images))


def _tokens(maps: Float[Tensor, "batch dimension rows columns"]) -> DenseTokens:
    return DenseTokens(maps.flatten(2).mT, Grid(*maps.shape[-2:]))
