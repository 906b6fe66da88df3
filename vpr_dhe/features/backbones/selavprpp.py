"""Backbone of SelaVPR++: frozen DINOv2 with convolutional adapters in a parallel stream.

Source: Lu et al., "SelaVPR++: Towards seamless adaptation of foundation models for efficient place recognition", TPAMI
2025; https://github.com/Lu-Feng/SelaVPRplusplus.
"""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from vpr_dhe.features.backbones.dinov2 import DinoV2
from vpr_dhe.features.base import DenseTokens
from vpr_dhe.records import Grid, Size

PREFIX = "selavprpp:"
WITH_CODES = "-codes"
"""End of the names of backbones with a branch of binary codes."""

# Blocks before the first adapter: large models adapt the last 16 of 24.
_UNADAPTED_BLOCKS = {"large": 8}
_BATCH_NORM_EPS = 1e-3


def build_selavprpp(name: str, *, blocks: int | None, input_size: Size) -> "SelaVprPP":  # noqa: ARG001 (any size)
    """Build `selavprpp:SIZE` or `selavprpp:SIZE-codes` with random weights.

    Raises:
        ModelError: if DINOv2 has no such size, or it has fewer blocks.
    """
    size = name.removeprefix(PREFIX)
    return SelaVprPP(size.removesuffix(WITH_CODES), blocks=blocks, codes=size.endswith(WITH_CODES))


class SelaVprPP(DinoV2):
    """Stream y parallel to the patch tokens x of a frozen DINOv2: y <- y + adapter(y + x) after each block.

    It starts at the embedded patches or, in large models, at the tokens after the eighth block, and has no class token.
    With `codes`, a second stream with its own adapters yields the binary codes.
    """

    def __init__(self, name: str, *, blocks: int | None = None, codes: bool = False) -> None:
        super().__init__(name, blocks=blocks)
        kept = len(self.vit.blocks)
        self._unadapted = min(_UNADAPTED_BLOCKS.get(name, 0), kept - 1)
        self.adapters = self._new_adapters(kept - self._unadapted)
        self.code_adapters = self._new_adapters(kept - self._unadapted) if codes else None

    def _new_adapters(self, count: int) -> nn.ModuleList:
        return nn.ModuleList(ConvAdapter(self.dimension) for _ in range(count))

    def forward(self, images: Float[Tensor, "batch 3 height width"]) -> DenseTokens:
        """Compute the patch tokens of the stream and of the code stream."""
        tokens, grid = self.embedded(images)
        for block in self.vit.blocks[: self._unadapted]:
            tokens = block(tokens)
        branches = [self.adapters] if self.code_adapters is None else [self.adapters, self.code_adapters]
        streams = [self.split(tokens, grid).patches] * len(branches)
        for number, block in enumerate(self.vit.blocks[self._unadapted :]):
            tokens = block(tokens)
            patches = self.split(tokens, grid).patches
            streams = [
                stream + adapters[number](stream + patches, grid)
                for stream, adapters in zip(streams, branches, strict=True)
            ]
        stream, *of_codes = [self.vit.norm(stream) for stream in streams]
        return DenseTokens(stream, grid, code_patches=of_codes[0] if of_codes else None)


class ConvAdapter(nn.Module):
    """Bottleneck with convolutions over 1, 3 and 5 cells between its two layers."""

    def __init__(self, dimension: int) -> None:
        super().__init__()
        hidden = dimension // 2
        narrow, wide = hidden // 16, hidden // 4
        self.D_fc1 = nn.Linear(dimension, hidden)
        self.branch1 = ConvNormReLU(hidden, hidden // 2, 1)
        self.branch2 = nn.ModuleList([ConvNormReLU(hidden, narrow, 1), ConvNormReLU(narrow, wide, 3)])
        self.branch3 = nn.ModuleList([ConvNormReLU(hidden, narrow, 1), ConvNormReLU(narrow, wide, 5)])
        self.D_fc2 = nn.Linear(hidden, dimension)

    def forward(
        self, patches: Float[Tensor, "batch cells dimension"], grid: Grid
    ) -> Float[Tensor, "batch cells dimension"]:
        """Adapt patch tokens."""
        hidden = self.D_fc1(patches).relu()
        maps = hidden.mT.unflatten(2, (grid.rows, grid.columns))
        branches = [self.branch1(maps), *(last(first(maps)) for first, last in (self.branch2, self.branch3))]
        return self.D_fc2(torch.cat(branches, dim=1).flatten(2).mT + hidden)


class ConvNormReLU(nn.Module):
    """Convolution that keeps the grid, batch norm, ReLU."""

    def __init__(self, channels: int, out_channels: int, side: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, out_channels, side, padding=side // 2)
        self.bn = nn.BatchNorm2d(out_channels, eps=_BATCH_NORM_EPS)

    def forward(self, maps: Float[Tensor, "batch channels rows columns"]) -> Float[Tensor, "batch out rows columns"]:
        """Convolve a map."""
        return self.bn(self.conv(maps)).relu()
