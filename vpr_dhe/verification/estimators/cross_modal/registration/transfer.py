"""Transfer networks, which translate an image to another modality, pixel by pixel.

They predict a change of the image in log-odds, and start at zero, because noise would mislead a registration network
that was trained elsewhere. Patches are single pixels, so that the fifth level of a 128 px image is one window.

Source: Cao et al., "Swin-Unet: Unet-like Pure Transformer for Medical Image Segmentation", ECCV Workshops 2022; SSHNet
(arXiv:2409.17993) for dimension 16, blocks 2-2-2-2-6, heads 2-4-8-16-32 and windows of 8.
"""

from collections.abc import Callable
from itertools import pairwise

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import interpolate, pixel_shuffle

from vpr_dhe.errors import ModelError
from vpr_dhe.runtime.choices import TransferName
from vpr_dhe.verification.estimators.cross_modal.registration.base import InstanceNorm

_WINDOW = 8
_BLOCKS = (2, 2, 2, 2, 6)
_HEADS = (2, 4, 8, 16, 32)
_CONVOLUTIONAL_LEVELS = 4
# Black and white have infinite log-odds.
_MIN_VALUE = 0.02


class SwinUnet(nn.Module):
    """U-Net of shifted-window transformers; `width` channels at full size, twice as many at each level below."""

    def __init__(self, width: int) -> None:
        from torchvision.models.swin_transformer import PatchMerging

        super().__init__()
        widths = [width * 2**level for level in range(len(_BLOCKS))]
        self.embed = nn.Conv2d(3, width, 1)
        self.down = nn.ModuleList(_swin_level(*level) for level in zip(widths, _HEADS, _BLOCKS, strict=True))
        self.merge = nn.ModuleList(PatchMerging(channels) for channels in widths[:-1])
        self.expand = nn.ModuleList(_PatchExpanding(channels) for channels in widths[1:])
        self.join = nn.ModuleList(nn.Linear(2 * channels, channels) for channels in widths[:-1])
        above = zip(widths[:-1], _HEADS[:-1], _BLOCKS[:-1], strict=True)
        self.up = nn.ModuleList(_swin_level(*level) for level in above)
        self.change = nn.Sequential(nn.LayerNorm(width), _zero_initialised(nn.Linear(width, 3)))

    def forward(self, images: Float[Tensor, "images 3 height width"]) -> Float[Tensor, "images 3 height width"]:
        """Translate RGB images in [0, 1]."""
        tokens, passed = self.embed(2 * images - 1).permute(0, 2, 3, 1), []
        for level, blocks in enumerate(self.down):
            tokens = blocks(tokens)
            if level < len(self.merge):
                passed.append(tokens)
                tokens = self.merge[level](tokens)
        for level in reversed(range(len(self.up))):
            tokens = self.join[level](torch.cat([self.expand[level](tokens), passed[level]], dim=3))
            tokens = self.up[level](tokens)
        return _changed(images, self.change(tokens).permute(0, 3, 1, 2))


class ShuffledSwinUnet(nn.Module):
    """`SwinUnet` that resamples by convolutions and pixel shuffles, as the published network of SSHNet does.

    The change of the image in log-odds is ours: the authors' network computes its colours.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        widths = [width * 2**level for level in range(len(_BLOCKS))]
        above = list(zip(widths[:-1], _HEADS[:-1], _BLOCKS[:-1], strict=True))
        self.embed = _spatial(3, width)
        self.down = nn.ModuleList(_swin_level(*level) for level in zip(widths, _HEADS, _BLOCKS, strict=True))
        self.shrink = nn.ModuleList(
            nn.Sequential(_spatial(channels, channels // 2), nn.PixelUnshuffle(2)) for channels in widths[:-1]
        )
        self.grow = nn.ModuleList(
            nn.Sequential(_spatial(channels, 2 * channels), nn.PixelShuffle(2)) for channels in widths[1:]
        )
        self.join = nn.ModuleList(nn.Conv2d(2 * channels, channels, 1, bias=False) for channels in widths[:-1])
        self.up = nn.ModuleList(_swin_level(*level) for level in above)
        self.change = _zero_initialised(nn.Conv2d(width, 3, 1))

    def forward(self, images: Float[Tensor, "images 3 height width"]) -> Float[Tensor, "images 3 height width"]:
        """Translate RGB images in [0, 1]."""
        maps, passed = _by_tokens(self.down[0], self.embed(2 * images - 1)), []
        for shrink, blocks in zip(self.shrink, self.down[1:], strict=True):
            passed.append(maps)
            maps = _by_tokens(blocks, shrink(maps))
        for level in reversed(range(len(self.up))):
            maps = self.join[level](torch.cat([self.grow[level](maps), passed[level]], dim=1))
            maps = _by_tokens(self.up[level], maps)
        return _changed(images, self.change(maps))


def _by_tokens(blocks: nn.Module, maps: Float[Tensor, "images channels rows columns"]) -> Float[Tensor, "images _ _ _"]:
    """Apply blocks that take channels last."""
    return blocks(maps.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


def _spatial(channels: int, out: int) -> nn.Conv2d:
    return nn.Conv2d(channels, out, 3, padding=1, bias=False)


class _PatchExpanding(nn.Module):
    """Inverse of patch merging: each token becomes 2 x 2 tokens of half the channels."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.linear, self.norm = nn.Linear(channels, 2 * channels), nn.LayerNorm(channels // 2)

    def forward(
        self, tokens: Float[Tensor, "images rows columns channels"]
    ) -> Float[Tensor, "images twice_rows twice_columns half_channels"]:
        return self.norm(pixel_shuffle(self.linear(tokens).permute(0, 3, 1, 2), 2).permute(0, 2, 3, 1))


def _swin_level(channels: int, heads: int, blocks: int) -> nn.Sequential:
    """Blocks of one level; every other one has windows shifted by half their side."""
    from torchvision.models.swin_transformer import SwinTransformerBlock

    shifts = [0 if block % 2 == 0 else _WINDOW // 2 for block in range(blocks)]
    return nn.Sequential(
        *(SwinTransformerBlock(channels, heads, [_WINDOW, _WINDOW], [shift, shift]) for shift in shifts)
    )


class ConvolutionalUnet(nn.Module):
    """Small U-Net of convolutions; `width` channels at full size, twice as many at each level below."""

    def __init__(self, width: int) -> None:
        super().__init__()
        widths = [width * 2**level for level in range(_CONVOLUTIONAL_LEVELS)]
        self.down = nn.ModuleList(_convolutions(*level) for level in zip([3, *widths], widths, strict=False))
        self.up = nn.ModuleList(_convolutions(above + below, above) for above, below in pairwise(widths))
        self.change = _zero_initialised(nn.Conv2d(width, 3, 1))

    def forward(self, images: Float[Tensor, "images 3 height width"]) -> Float[Tensor, "images 3 height width"]:
        """Translate RGB images in [0, 1]."""
        maps, passed = 2 * images - 1, []
        for level, layers in enumerate(self.down):
            maps = layers(maps if level == 0 else nn.functional.max_pool2d(maps, 2))
            passed.append(maps)
        for level in reversed(range(len(self.up))):
            larger = interpolate(maps, passed[level].shape[2:], mode="bilinear", align_corners=False)
            maps = self.up[level](torch.cat([larger, passed[level]], dim=1))
        return _changed(images, self.change(maps))


def _convolutions(channels: int, out: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for first in (channels, out):
        layers += [nn.Conv2d(first, out, 3, padding=1), InstanceNorm(out, affine=True), nn.ReLU()]
    return nn.Sequential(*layers)


def _zero_initialised(layer: nn.Linear | nn.Conv2d) -> nn.Module:
    """Set the parameters of a layer to zero."""
    nn.init.zeros_(layer.weight)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
    return layer


def _changed(
    images: Float[Tensor, "images 3 height width"], change: Float[Tensor, "images 3 height width"]
) -> Float[Tensor, "images 3 height width"]:
    return (images.clamp(_MIN_VALUE, 1 - _MIN_VALUE).logit() + change).sigmoid()


TRANSFERS: dict[str, Callable[[int], nn.Module]] = {
    TransferName.swin: SwinUnet,
    TransferName.swin_shuffle: ShuffledSwinUnet,
    TransferName.convolutional: ConvolutionalUnet,
}


def build_transfer(name: str, width: int) -> nn.Module:
    """Build a network with random weights.

    Raises:
        ModelError: if the name is unknown.
    """
    if name not in TRANSFERS:
        raise ModelError(f"unknown transfer network {name!r}; available: {', '.join(TRANSFERS)}")
    return TRANSFERS[name](width)
