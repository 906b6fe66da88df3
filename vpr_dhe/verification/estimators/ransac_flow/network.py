"""Fine network of RANSAC-Flow: flow and matchability of each pixel between two roughly aligned images.

Source: Shen et al., "RANSAC-Flow: generic two-stage image alignment", ECCV 2020, section 3.2 and supplementary; Zhang,
"Making convolutional networks shift-invariant again", ICML 2019 (the blur before a stride).
"""

from dataclasses import dataclass
from itertools import pairwise
from typing import Literal, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from vpr_dhe.geometry.warping import sample

STRIDE_PX = 8
"""Width of a cell of the network's maps; sides of its input are multiples of it."""
RADIUS_CELLS = 3
MAX_FLOW_PX = STRIDE_PX * RADIUS_CELLS
"""Longest flow along an axis."""
_WINDOW = 2 * RADIUS_CELLS + 1
_STEPS = torch.arange(-RADIUS_CELLS, RADIUS_CELLS + 1.0)
OFFSETS_CELLS = torch.stack([_STEPS.repeat(_WINDOW), _STEPS.repeat_interleave(_WINDOW)], dim=1)
"""Offsets (x, y), row by row from (-3, -3) to (3, 3)."""
# Statistics of ImageNet.
_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@dataclass(frozen=True, kw_only=True)
class FineOptions:
    """Differences between fine networks; the defaults are those of network files without them.

    Args:
        blurred_residual: whether residual branches blur before they stride; without, their first convolution strides.
        blur_padding: padding of the blur.
        head_bias: whether the last layer of each head has a bias.
        imagenet_input: whether images are normalised by the statistics of ImageNet; without, they stay in [0, 1].
        aligned_corners: whether flows are fractions of the image between the centres of its outer pixels, and end in
            it; in training, maps are then enlarged with aligned corners, too.
    """

    blurred_residual: bool = True
    blur_padding: Literal["replicate", "reflect"] = "replicate"
    head_bias: bool = True
    imagenet_input: bool = True
    aligned_corners: bool = False


@dataclass(frozen=True)
class FineSettings(FineOptions):
    """Options, and channels of the features at 1/2, 1/4 and 1/8 of the resolution and of the layers of each head."""

    half: int = 64
    quarter: int = 128
    eighth: int = 256
    first: int = 512
    second: int = 256
    third: int = 128


PUBLISHED = FineSettings(
    blurred_residual=False, blur_padding="reflect", head_bias=False, imagenet_input=False, aligned_corners=True
)
"""Settings of the published networks, and default of training (github.com/XiSHEN0220/RANSAC-Flow)."""


class Fine(NamedTuple):
    """Output of the fine network, at every pixel of the target.

    The source at `x + flow_px(x)` shows what the target shows at `x`, with a probability of `matchability(x)`. The
    intermediate `correlation` and `offset_logits` are at an eighth of the resolution, for each of `OFFSETS_CELLS`.
    """

    flow_px: Float[Tensor, "pairs 2 height width"]
    matchability: Float[Tensor, "pairs 1 height width"]
    correlation: Float[Tensor, "pairs offsets rows columns"]
    offset_logits: Float[Tensor, "pairs offsets rows columns"]


class FineNetwork(nn.Module):
    """Network of features at an eighth of the resolution, their local correlation, and two heads on it."""

    def __init__(self, settings: FineSettings = FineSettings()) -> None:
        super().__init__()
        self.settings = settings
        self.features = FeatureNetwork(settings)
        self.flow_head = _head(settings, _WINDOW**2)
        self.matchability_head = _head(settings, 1)

    def extract(self, images: Float[Tensor, "images 3 height width"]) -> Float[Tensor, "images channels rows columns"]:
        """Extract features of unit length from images in [0, 1]."""
        if self.settings.imagenet_input:
            mean, std = (images.new_tensor(values).view(1, 3, 1, 1) for values in (_MEAN, _STD))
            images = (images - mean) / std
        return functional.normalize(self.features(images), dim=1)

    def compare(
        self, source: Float[Tensor, "pairs channels rows columns"], target: Float[Tensor, "pairs channels rows columns"]
    ) -> Fine:
        """Compute flow, in pixels of the images, and matchability of the target."""
        correlation = local_correlation(source, target)
        logits = self.flow_head(correlation).float()
        matchability = self._enlarged(self.matchability_of_cells(correlation))
        flow_px = self._flow_px(self._enlarged(flow_of_cells(logits)))
        return Fine(flow_px, matchability, correlation, logits)

    def matchability_of_cells(
        self, correlation: Float[Tensor, "pairs offsets rows columns"]
    ) -> Float[Tensor, "pairs 1 rows columns"]:
        """Compute the matchability of each cell of the target."""
        return self.matchability_head(correlation).float().sigmoid()

    def forward(
        self, source: Float[Tensor, "pairs 3 height width"], target: Float[Tensor, "pairs 3 height width"]
    ) -> tuple[Fine, Fine]:
        """Compare images in both directions; returns the flows at the pixels of the target and of the source."""
        source_features, target_features = self.extract(torch.cat([source, target])).chunk(2)
        return self.compare(source_features, target_features), self.compare(target_features, source_features)

    def _enlarged(self, maps: Float[Tensor, "pairs channels rows columns"]) -> Float[Tensor, "pairs channels _ _"]:
        # As in the authors' code, whose evaluation aligns corners in sampling alone.
        aligned = self.settings.aligned_corners and self.training
        return functional.interpolate(maps, scale_factor=STRIDE_PX, mode="bilinear", align_corners=aligned)

    def _flow_px(self, flow_cells: Float[Tensor, "pairs 2 height width"]) -> Float[Tensor, "pairs 2 height width"]:
        """Convert a flow of each pixel from cells to pixels."""
        if not self.settings.aligned_corners:
            return STRIDE_PX * flow_cells
        height, width = flow_cells.shape[-2:]
        last = flow_cells.new_tensor([width - 1, height - 1]).view(1, 2, 1, 1)
        rows, columns = (torch.arange(side, device=flow_cells.device) for side in (height, width))
        pixels = torch.stack([columns.expand(height, width), rows[:, None].expand(height, width)]).to(flow_cells)
        cells = flow_cells.new_tensor([width / STRIDE_PX, height / STRIDE_PX]).view(1, 2, 1, 1)
        ends = (pixels + flow_cells * last / cells).clamp(min=0)
        return torch.minimum(ends, last) - pixels


def flow_of_cells(
    offset_logits: Float[Tensor, "pairs offsets rows columns"],
) -> Float[Tensor, "pairs 2 rows columns"]:
    """Mean of `OFFSETS_CELLS` under the softmax of the logits: the flow (x, y) of each cell, in cells."""
    return torch.einsum("po...,oa->pa...", offset_logits.softmax(dim=1), OFFSETS_CELLS.to(offset_logits))


class FeatureNetwork(nn.Module):
    """First three stages of a ResNet-18 without a stride in the first stage, and with a blur before each stride."""

    def __init__(self, settings: FineSettings) -> None:
        super().__init__()
        blur = BlurPool(settings.blur_padding)
        self.stem = nn.Sequential(_convolution(3, settings.half), nn.ReLU(), nn.MaxPool2d(2, stride=1), blur)
        self.at_half = nn.Sequential(
            ResidualBlock(settings.half, settings.half), ResidualBlock(settings.half, settings.half)
        )
        self.at_quarter = _shrinking(settings.half, settings.quarter, settings)
        self.at_eighth = _shrinking(settings.quarter, settings.eighth, settings)

    def forward(self, images: Float[Tensor, "images 3 height width"]) -> Float[Tensor, "images channels rows columns"]:
        """Compute features; the sides of the images are multiples of 8 pixels."""
        return self.at_eighth(self.at_quarter(self.at_half(self.stem(images))))


class ResidualBlock(nn.Module):
    """Two convolutions and a shortcut; with `blur` it halves the resolution.

    Its residual branch then blurs, too, or, without `blurred_residual`, strides in its first convolution.
    """

    def __init__(
        self, width: int, out_width: int, *, blur: "BlurPool | None" = None, blurred_residual: bool = True
    ) -> None:
        super().__init__()
        smaller = [] if blur is None else [blur]
        stride = 2 if smaller and not blurred_residual else 1
        self.residual = nn.Sequential(
            _convolution(width, out_width, stride=stride),
            nn.ReLU(),
            *(smaller if blurred_residual else []),
            _convolution(out_width, out_width),
        )
        same = width == out_width and not smaller
        self.shortcut = nn.Identity() if same else nn.Sequential(*smaller, _convolution(width, out_width, side=1))

    def forward(
        self, features: Float[Tensor, "images width rows columns"]
    ) -> Float[Tensor, "images out_width out_rows out_columns"]:
        """Add the residual to the features."""
        return functional.relu(self.residual(features) + self.shortcut(features))


class BlurPool(nn.Module):
    """Subsampling by two after a blur with the binomial [1 2 1] x [1 2 1] (Zhang 2019, section 3)."""

    def __init__(self, padding: Literal["replicate", "reflect"] = "replicate") -> None:
        super().__init__()
        self.padding = padding

    def forward(self, maps: Float[Tensor, "images width rows columns"]) -> Float[Tensor, "images width half half_"]:
        """Blur, and keep every other pixel."""
        width = maps.shape[1]
        line = torch.tensor([0.25, 0.5, 0.25], dtype=maps.dtype, device=maps.device)
        kernel = torch.outer(line, line).expand(width, 1, 3, 3)
        padded = functional.pad(maps, (1, 1, 1, 1), mode=self.padding)
        return functional.conv2d(padded, kernel, stride=2, groups=width)


def local_correlation(
    source: Float[Tensor, "pairs channels rows columns"], target: Float[Tensor, "pairs channels rows columns"]
) -> Float[Tensor, "pairs offsets rows columns"]:
    """Inner products of each cell of the target with the source's cells up to 3 cells away; 0 beyond its border.

    Offsets are in the order of `OFFSETS_CELLS`.
    """
    rows, columns = target.shape[-2:]
    padded = functional.pad(source, (RADIUS_CELLS,) * 4)
    shifted = (padded[..., y : y + rows, x : x + columns] for y in range(_WINDOW) for x in range(_WINDOW))
    return torch.stack([(one * target).sum(dim=1) for one in shifted], dim=1)


def warp(
    images: Float[Tensor, "pairs channels height width"], flow_px: Float[Tensor, "pairs 2 height width"]
) -> Float[Tensor, "pairs channels height width"]:
    """Sample images bilinearly at `x + flow_px(x)`; beyond the border, the border's pixels repeat."""
    height, width = images.shape[-2:]
    rows, columns = (torch.arange(side, device=images.device, dtype=flow_px.dtype) for side in (height, width))
    places = torch.stack([columns + flow_px[:, 0], rows[:, None] + flow_px[:, 1]], dim=-1)
    return sample(images, places, "border")


def _shrinking(width: int, out_width: int, settings: FineSettings) -> nn.Sequential:
    """Two blocks, of which the first halves the resolution."""
    blur = BlurPool(settings.blur_padding)
    first = ResidualBlock(width, out_width, blur=blur, blurred_residual=settings.blurred_residual)
    return nn.Sequential(first, ResidualBlock(out_width, out_width))


def _convolution(width: int, out_width: int, *, side: int = 3, stride: int = 1) -> nn.Sequential:
    convolution = nn.Conv2d(width, out_width, side, stride=stride, padding=side // 2, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(out_width))


def _head(settings: FineSettings, out_width: int) -> nn.Sequential:
    widths = [_WINDOW**2, settings.first, settings.second, settings.third]
    layers = [layer for pair in pairwise(widths) for layer in (_convolution(*pair), nn.ReLU())]
    return nn.Sequential(*layers, nn.Conv2d(settings.third, out_width, 3, padding=1, bias=settings.head_bias))
