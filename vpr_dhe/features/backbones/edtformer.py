"""Backbone of EDTformer: frozen DINOv2 with low-rank adapters in a parallel stream.

Source: Jin et al., "EDTformer: An efficient decoder transformer for visual place recognition", TCSVT 2025;
https://github.com/Tong-Jin01/EDTformer.
"""

from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from vpr_dhe.features.backbones.dinov2 import DinoV2
from vpr_dhe.features.base import DenseTokens
from vpr_dhe.records import Size

PREFIX = "edtformer:"
_RANK = 4
_SCALE = 0.5


def build_edtformer(name: str, *, blocks: int | None, input_size: Size) -> "EdtFormer":  # noqa: ARG001 (any size)
    """Build `edtformer:SIZE` with random weights.

    Raises:
        ModelError: if DINOv2 has no such size, or it has fewer blocks.
    """
    return EdtFormer(name.removeprefix(PREFIX), blocks=blocks)


class EdtFormer(DinoV2):
    """Stream y parallel to the tokens x of a frozen DINOv2: z = y + x, y <- z + adapter(z) / 2 after each block."""

    def __init__(self, name: str, *, blocks: int | None = None) -> None:
        super().__init__(name, blocks=blocks)
        self.adapters = nn.ModuleList(LowRankAdapter(self.dimension) for _ in self.vit.blocks)

    def forward(self, images: Float[Tensor, "batch 3 height width"]) -> DenseTokens:
        """Compute the patch tokens and the class token of the stream."""
        tokens, grid = self.embedded(images)
        stream = tokens
        for block, adapter in zip(self.vit.blocks, self.adapters, strict=True):
            tokens = block(tokens)
            joined = stream + tokens
            stream = joined + _SCALE * adapter(joined)
        return self.split(self.vit.norm(stream), grid)


class LowRankAdapter(nn.Module):
    """Bottleneck with four channels and GELU."""

    def __init__(self, dimension: int) -> None:
        super().__init__()
        self.D_fc1 = nn.Linear(dimension, _RANK)
        self.D_fc2 = nn.Linear(_RANK, dimension)

    def forward(self, tokens: Float[Tensor, "batch tokens dimension"]) -> Float[Tensor, "batch tokens dimension"]:
        """Adapt tokens."""
        return self.D_fc2(functional.gelu(self.D_fc1(tokens)))
