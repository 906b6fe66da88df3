"""ResNets and VGG-16 with torchvision's parameter names, which many published retrieval networks use.

They are defined here because importing torchvision takes seconds.
"""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from vpr_dhe.errors import ModelError
from vpr_dhe.features.base import Backbone, DenseTokens
from vpr_dhe.models.importers.torchvision_keys import BASIC_RESNETS, RESNETS
from vpr_dhe.records import Grid, Size

PREFIX = "torchvision:"
VGG = "vgg16"
_STAGES = 4
_VGG_WIDTHS = ((64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512))
"""Widths of the convolutions between poolings (Simonyan and Zisserman 2015, table 1, column D)."""
_VGG_STRIDE_PX = 16


def build_torchvision(name: str, *, blocks: int | None, input_size: Size) -> Backbone:
    """Build `torchvision:NAME` with random weights; a ResNet is cut after `blocks` of its stages if given.

    Raises:
        ModelError: if the network is unknown, it cannot be cut there, or its cells do not divide the input size.
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
    """ResNet, cut after its first stages (`layer1` to `layer4`); it takes images of any size.

    Stages halve the map in the 3 x 3 convolution of their first block, as in torchvision.

    Source: He et al., "Deep Residual Learning for Image Recognition", CVPR 2016.
    """

    convolutional = True

    def __init__(self, name: str, stages: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 64, 7, stride=2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        block = _Basic if name in BASIC_RESNETS else _Bottleneck
        layers = []
        self.dimension = 64
        for stage, blocks in enumerate(RESNETS[name][:stages]):
            width = 64 * 2**stage
            outputs = block.expansion * width
            first = block(self.dimension, width, stride=1 if stage == 0 else 2)
            layers.append(nn.Sequential(first, *(block(outputs, width) for _ in range(blocks - 1))))
            self.dimension = outputs
        self.stages = [f"layer{number}" for number in range(1, stages + 1)]
        for stage, layer in zip(self.stages, layers, strict=True):
            self.add_module(stage, layer)

    def forward(self, images: Float[Tensor, "batch 3 height width"]) -> DenseTokens:
        """Compute one token per cell of the map; there is no class token."""
        maps = nn.functional.max_pool2d(torch.relu(self.bn1(self.conv1(images))), 3, stride=2, padding=1)
        for stage in self.stages:
            maps = self.get_submodule(stage)(maps)
        return _tokens(maps)


class Vgg16(Backbone):
    """VGG-16 up to its last convolution, without the ReLU after it; it takes images of any size.

    Source: Simonyan and Zisserman, "Very Deep Convolutional Networks for Large-Scale Image Recognition", ICLR 2015.
    """

    convolutional = True
    dimension = 512

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        inputs = 3
        for widths in _VGG_WIDTHS:
            for width in widths:
                layers += [nn.Conv2d(inputs, width, 3, padding=1), nn.ReLU()]
                inputs = width
            layers.append(nn.MaxPool2d(2))
        self.features = nn.Sequential(*layers[:-2])

    def forward(self, images: Float[Tensor, "batch 3 height width"]) -> DenseTokens:
        """Compute one token per cell of the map; there is no class token."""
        return _tokens(self.features(images))


class _Basic(nn.Module):
    """Residual block of two 3 x 3 convolutions."""

    expansion = 1

    def __init__(self, inputs: int, width: int, stride: int = 1) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, width, 3, stride=stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.downsample = _shortcut(inputs, width, stride)

    def forward(
        self, maps: Float[Tensor, "batch inputs rows columns"]
    ) -> Float[Tensor, "batch width rows_out columns_out"]:
        inner = torch.relu(self.bn1(self.conv1(maps)))
        return torch.relu(self.bn2(self.conv2(inner)) + self.downsample(maps))


class _Bottleneck(nn.Module):
    """Residual block of a 1 x 1, a 3 x 3 and a 1 x 1 convolution."""

    expansion = 4

    def __init__(self, inputs: int, width: int, stride: int = 1) -> None:
        super().__init__()
        outputs = self.expansion * width
        self.conv1 = nn.Conv2d(inputs, width, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, stride=stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, outputs, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(outputs)
        self.downsample = _shortcut(inputs, outputs, stride)

    def forward(
        self, maps: Float[Tensor, "batch inputs rows columns"]
    ) -> Float[Tensor, "batch outputs rows_out columns_out"]:
        inner = torch.relu(self.bn1(self.conv1(maps)))
        inner = torch.relu(self.bn2(self.conv2(inner)))
        return torch.relu(self.bn3(self.conv3(inner)) + self.downsample(maps))


def _shortcut(inputs: int, outputs: int, stride: int) -> nn.Module:
    if stride == 1 and inputs == outputs:
        return nn.Identity()
    return nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride=stride, bias=False), nn.BatchNorm2d(outputs))


def _tokens(maps: Float[Tensor, "batch dimension rows columns"]) -> DenseTokens:
    return DenseTokens(maps.flatten(2).mT, Grid(*maps.shape[-2:]))
