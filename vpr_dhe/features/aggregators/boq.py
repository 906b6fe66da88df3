"""Bag of queries: learned queries that attend to the cells of an image, in several blocks.

Source: Ali-bey et al., "BoQ: A place is worth a bag of learnable queries", CVPR 2024;
https://github.com/amaralibey/Bag-of-Queries.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import normalize

from vpr_dhe.features.base import Aggregator, DenseTokens

_HEAD_DIMENSION = 64
_FEED_FORWARD = 4


@dataclass(frozen=True)
class BoqSizes:
    """Sizes of a bag of queries.

    Args:
        width: width of the projected cells and of the queries: a multiple of 64, or less than 64.
        queries: number of queries of a block.
        blocks: number of blocks.
        rows: number of linear combinations of the query outputs that form the descriptor.
    """

    width: int = 384
    queries: int = 64
    blocks: int = 2
    rows: int = 32

    @classmethod
    def of(cls, state: Mapping[str, Tensor]) -> "BoqSizes":
        """Infer the sizes from the shapes of an aggregator's tensors; the default without tensors."""
        queries = state.get("boqs.0.queries")
        if queries is None or queries.ndim != 3 or "fc.bias" not in state:
            return cls()
        blocks = sum(name.endswith(".queries") for name in state)
        return cls(queries.shape[2], queries.shape[1], blocks, len(state["fc.bias"]))


class BagOfQueries(Aggregator):
    """Linear combinations of the query outputs of all blocks, with unit norm.

    Args:
        dimension: width of the tokens.
        sizes: sizes of the layers.
    """

    def __init__(self, dimension: int, sizes: BoqSizes) -> None:
        super().__init__()
        self.proj_c = nn.Conv2d(dimension, sizes.width, 3, padding=1)
        self.norm_input = nn.LayerNorm(sizes.width)
        self.boqs = nn.ModuleList(BoqBlock(sizes.width, sizes.queries) for _ in range(sizes.blocks))
        self.fc = nn.Linear(sizes.blocks * sizes.queries, sizes.rows)

    def forward(self, tokens: DenseTokens) -> Float[Tensor, "batch dimension"]:
        """Aggregate the patch tokens."""
        maps = tokens.patches.mT.unflatten(2, (tokens.grid.rows, tokens.grid.columns))
        cells = self.norm_input(self.proj_c(maps).flatten(2).mT)
        answers = []
        for block in self.boqs:
            cells, answer = block(cells)
            answers.append(answer)
        return normalize(self.fc(torch.cat(answers, dim=1).mT).flatten(1), dim=1)


class BoqBlock(nn.Module):
    """Encoder layer of the cells, and queries that attend to each other and then to the cells."""

    def __init__(self, width: int, queries: int) -> None:
        super().__init__()
        heads = max(width // _HEAD_DIMENSION, 1)
        self.encoder = EncoderLayer(width, heads)
        self.queries = nn.Parameter(torch.randn(1, queries, width))
        self.self_attn = nn.MultiheadAttention(width, heads, batch_first=True)
        self.norm_q = nn.LayerNorm(width)
        self.cross_attn = nn.MultiheadAttention(width, heads, batch_first=True)
        self.norm_out = nn.LayerNorm(width)

    def forward(
        self, cells: Float[Tensor, "batch cells width"]
    ) -> tuple[Float[Tensor, "batch cells width"], Float[Tensor, "batch queries width"]]:
        """Return the encoded cells and the attention output of the queries, without a residual."""
        cells = self.encoder(cells)
        asked = self.queries + attend(self.self_attn, self.queries, self.queries)
        queries = self.norm_q(asked).expand(cells.shape[0], -1, -1)
        return cells, self.norm_out(attend(self.cross_attn, queries, cells))


class EncoderLayer(nn.Module):
    """Post-norm transformer encoder layer with ReLU; torch's own layer exports differently."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.self_attn = nn.MultiheadAttention(width, heads, batch_first=True)
        self.linear1 = nn.Linear(width, _FEED_FORWARD * width)
        self.linear2 = nn.Linear(_FEED_FORWARD * width, width)
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)

    def forward(self, cells: Float[Tensor, "batch cells width"]) -> Float[Tensor, "batch cells width"]:
        """Encode cells."""
        cells = self.norm1(cells + attend(self.self_attn, cells, cells))
        return self.norm2(cells + self.linear2(self.linear1(cells).relu()))


def attend(
    layer: nn.MultiheadAttention,
    queries: Float[Tensor, "batch queries width"],
    cells: Float[Tensor, "batch cells width"],
) -> Float[Tensor, "batch queries width"]:
    """Attention of queries to cells."""
    return layer(queries, cells, cells, need_weights=False)[0]
