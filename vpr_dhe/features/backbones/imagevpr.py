"""Backbone of ImAge: DINOv2 with registers, and tokens that aggregate the image in its last blocks.

Source: Lu et al., "Towards implicit aggregation: robust image representation for place recognition in the transformer
era", NeurIPS 2025; https://github.com/Lu-Feng/ImAge.
"""

from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

from vpr_dhe.features.backbones.dinov2 import DinoV2
from vpr_dhe.features.base import DenseTokens
from vpr_dhe.records import Size

PREFIX = "imagevpr:"
_JOINED_BLOCKS = 4
_TOKENS = 8


def build_imagevpr(name: str, *, blocks: int | None, input_size: Size) -> "ImAge":  # noqa: ARG001 (any size)
    """Build `imagevpr:SIZE` with random weights.

    Raises:
        ModelError: if DINOv2 has no such size, or it has fewer blocks.
    """
    return ImAge(f"{name.removeprefix(PREFIX)}-reg4", blocks=blocks)


class ImAge(DinoV2):
    """DINOv2 with eight learned tokens, without positions, prepended for its last four blocks.

    As in the published code, the positional embedding is resized as in models without registers.
    """

    antialiased_positions: ClassVar[bool | None] = False

    def __init__(self, name: str, *, blocks: int | None = None) -> None:
        super().__init__(name, blocks=blocks)
        self.aggregation_tokens = nn.Parameter(0.02 * torch.randn(1, _TOKENS, self.dimension))

    def forward(self, images: Float[Tensor, "batch 3 height width"]) -> DenseTokens:
        """Compute the patch tokens, the class token and the aggregation tokens."""
        tokens, grid = self.embedded(images)
        joined = max(0, len(self.vit.blocks) - _JOINED_BLOCKS)
        for block in self.vit.blocks[:joined]:
            tokens = block(tokens)
        tokens = torch.cat([self.aggregation_tokens.expand(images.shape[0], -1, -1), tokens], dim=1)
        for block in self.vit.blocks[joined:]:
            tokens = block(tokens)
        tokens = self.vit.norm(tokens)
        split = self.split(tokens[:, _TOKENS:], grid)
        return DenseTokens(split.patches, grid, split.class_token, aggregation_tokens=tokens[:, :_TOKENS])
