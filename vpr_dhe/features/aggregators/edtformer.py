"""Decoder of EDTformer: learned queries that attend to the tokens of an image, without feed-forward layers.

Source: Jin et al., "EDTformer: An efficient decoder transformer for visual place recognition", TCSVT 2025;
https://github.com/Tong-Jin01/EDTformer.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import normalize

from vpr_dhe.errors import ModelError
from vpr_dhe.features.aggregators.boq import attend
from vpr_dhe.features.base import Aggregator, DenseTokens

# Fewer if they do not divide the width of the tokens, as in small backbones.
_MAX_HEADS = 16


@dataclass(frozen=True)
class EdtFormerSizes:
    """Sizes of the decoder.

    Args:
        queries: number of queries.
        layers: number of decoder layers.
        channels: dimension that each query output is projected to.
        rows: number of linear combinations of the query outputs that form the descriptor.
    """

    queries: int = 64
    layers: int = 2
    channels: int = 256
    rows: int = 16

    @classmethod
    def of(cls, state: Mapping[str, Tensor]) -> "EdtFormerSizes":
        """Infer the sizes from the shapes of an aggregator's tensors; the default without tensors."""
        if any(name not in state for name in ("queries", "channel_proj.bias", "row_proj.bias")):
            return cls()
        layers = sum(name.endswith("norm2.bias") for name in state)
        return cls(state["queries"].shape[1], layers, len(state["channel_proj.bias"]), len(state["row_proj.bias"]))


class EdtFormerDecoder(Aggregator):
    """Query outputs, projected along both axes, with unit norm.

    Args:
        dimension: width of the tokens.
        sizes: sizes of the layers.

    Raises:
        ModelError: when called on tokens of a backbone without a class token.
    """

    def __init__(self, dimension: int, sizes: EdtFormerSizes) -> None:
        super().__init__()
        self.fc = nn.Linear(dimension, dimension)
        self.queries = nn.Parameter(torch.randn(1, sizes.queries, dimension))
        self.layers = nn.ModuleList(DecoderLayer(dimension) for _ in range(sizes.layers))
        self.channel_proj = nn.Linear(dimension, sizes.channels)
        self.row_proj = nn.Linear(sizes.queries, sizes.rows)

    def forward(self, tokens: DenseTokens) -> Float[Tensor, "batch dimension"]:
        """Aggregate the class token and the patch tokens."""
        if tokens.class_token is None:
            raise ModelError("the aggregator `edtformer` needs a class token and this backbone has none; choose gem")
        memory = self.fc(torch.cat([tokens.class_token[:, None], tokens.patches], dim=1))
        answers = self.queries.expand(memory.shape[0], -1, -1)
        for layer in self.layers:
            answers = layer(answers, memory)
        return normalize(self.row_proj(self.channel_proj(answers).mT).flatten(1), dim=1)


class DecoderLayer(nn.Module):
    """Post-norm self-attention of the queries, then cross-attention to the tokens."""

    def __init__(self, dimension: int) -> None:
        super().__init__()
        heads = math.gcd(_MAX_HEADS, dimension)
        self.self_attn = nn.MultiheadAttention(dimension, heads, batch_first=True)
        self.multihead_attn = nn.MultiheadAttention(dimension, heads, batch_first=True)
        self.norm1, self.norm2 = nn.LayerNorm(dimension), nn.LayerNorm(dimension)

    def forward(
        self, queries: Float[Tensor, "batch queries dimension"], tokens: Float[Tensor, "batch tokens dimension"]
    ) -> Float[Tensor, "batch queries dimension"]:
        """Update the queries."""
        queries = self.norm1(queries + attend(self.self_attn, queries, queries))
        return self.norm2(queries + attend(self.multihead_attn, queries, tokens))
