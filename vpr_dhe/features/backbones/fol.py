"""Backbone of FoL: DINOv2 that also returns the attention of its class token to each cell.

Source: Wang et al., "Focus on Local: Finding reliable discriminative regions for visual place recognition", AAAI 2025;
https://github.com/chenshunpeng/FoL.
"""

from dataclasses import replace
from typing import Any

from jaxtyping import Float
from torch import Tensor

from vpr_dhe.features.backbones.dinov2 import DinoV2
from vpr_dhe.features.base import DenseTokens
from vpr_dhe.records import Size

PREFIX = "fol:"


def build_fol(name: str, *, blocks: int | None, input_size: Size) -> "FoL":  # noqa: ARG001 (any size)
    """Build `fol:SIZE` with random weights.

    Raises:
        ModelError: if DINOv2 has no such size, or it has fewer blocks.
    """
    return FoL(name.removeprefix(PREFIX), blocks=blocks)


class FoL(DinoV2):
    """DINOv2 with the attention of the class token in its last block."""

    def forward(self, images: Float[Tensor, "batch 3 height width"]) -> DenseTokens:
        """Compute the patch tokens, the class token, and its attention to each cell."""
        tokens, grid = self.embedded(images)
        *blocks, last = self.vit.blocks
        for block in blocks:
            tokens = block(tokens)
        attention = _class_attention(last.attn, last.norm1(tokens))[:, self.vit.num_prefix_tokens :]
        return replace(self.split(self.vit.norm(last(tokens)), grid), class_attention=attention)


def _class_attention(layer: Any, tokens: Float[Tensor, "batch tokens dimension"]) -> Float[Tensor, "batch tokens"]:
    """Attention of the first token to all, summed over the heads of a layer of timm."""
    queries, keys, _ = layer.qkv(tokens).unflatten(2, (3, layer.num_heads, -1)).permute(2, 0, 3, 1, 4)
    return (layer.scale * queries[:, :, :1] @ keys.mT).softmax(-1).squeeze(2).sum(1)
