"""Compact Convolutional Transformers: a convolutional tokenizer before a transformer encoder.

Source: Hassani et al., "Escaping the Big Data Paradigm with Compact Transformers", 2021 (arXiv:2104.05704). Parameters
have the published names, so published weights load strictly once `models.importers` has dropped the classifier.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from vpr_dhe.errors import ModelError
from vpr_dhe.features.base import Backbone, DenseTokens
from vpr_dhe.models.positional_embedding import resize_positional_embedding
from vpr_dhe.records import Grid, Size

STRIDE_PX = 16
_STEM_CHANNELS = 64


@dataclass(frozen=True)
class Variant:
    """Sizes of a CCT."""

    dimension: int
    blocks: int
    heads: int
    mlp_ratio: int


# The last number of a name is the input side of the training; embeddings are resized for other input sizes.
VARIANTS = {
    "cct_7_7x2_224": Variant(dimension=256, blocks=7, heads=4, mlp_ratio=2),
    "cct_14_7x2_224": Variant(dimension=384, blocks=14, heads=6, mlp_ratio=3),
    "cct_14_7x2_384": Variant(dimension=384, blocks=14, heads=6, mlp_ratio=3),
}


def build_cct(name: str, *, blocks: int | None, input_size: Size) -> "CCT":
    """Build a variant with random weights.

    Raises:
        ModelError: if it has fewer blocks, or a side of the input is not a multiple of 16 pixels.
    """
    variant = VARIANTS[name]
    kept = variant.blocks if blocks is None else blocks
    if not 1 <= kept <= variant.blocks:
        raise ModelError(f"{name} cannot be cut to {kept} blocks; choose 1 to {variant.blocks}")
    if any(side < STRIDE_PX or side % STRIDE_PX for side in input_size):
        raise ModelError(
            f"{name} needs input sides that are multiples of {STRIDE_PX} pixels, "
            f"not {input_size.width} x {input_size.height}; round them down"
        )
    return CCT(variant, kept, Grid(input_size.height // STRIDE_PX, input_size.width // STRIDE_PX))


class CCT(Backbone):
    """CCT without its classifier, cut after `blocks` blocks; the final norm is still applied.

    For images with another grid than `grid`, the positional embedding is resized.
    """

    convolutional = True

    def __init__(self, variant: Variant, blocks: int, grid: Grid) -> None:
        super().__init__()
        self.dimension = variant.dimension
        self.tokenizer = _Tokenizer(variant.dimension)
        self.classifier = _Encoder(variant, blocks, grid)
        self.apply(_initialise)

    def forward(self, images: Float[Tensor, "batch 3 height width"]) -> DenseTokens:
        """Compute one token per 16 x 16 pixels; there is no class token."""
        maps = self.tokenizer(images)
        grid = Grid(*maps.shape[-2:])
        return DenseTokens(self.classifier(maps.flatten(2).mT, grid), grid)


class _Tokenizer(nn.Module):
    def __init__(self, dimension: int) -> None:
        super().__init__()
        self.conv_layers = nn.Sequential(_stem(3, _STEM_CHANNELS), _stem(_STEM_CHANNELS, dimension))

    def forward(self, images: Float[Tensor, "batch 3 height width"]) -> Float[Tensor, "batch dimension rows columns"]:
        return self.conv_layers(images)


def _stem(channels_in: int, channels_out: int) -> nn.Sequential:
    convolution = nn.Conv2d(channels_in, channels_out, kernel_size=7, stride=2, padding=3, bias=False)
    return nn.Sequential(convolution, nn.ReLU(), nn.MaxPool2d(kernel_size=3, stride=2, padding=1))


class _Encoder(nn.Module):
    """Transformer encoder, published under the name `classifier`."""

    def __init__(self, variant: Variant, blocks: int, grid: Grid) -> None:
        super().__init__()
        self.grid = grid
        self.positional_emb = nn.Parameter(torch.empty(1, grid.rows * grid.columns, variant.dimension))
        nn.init.trunc_normal_(self.positional_emb, std=0.2)
        self.blocks = nn.ModuleList(_Block(variant) for _ in range(blocks))
        self.norm = nn.LayerNorm(variant.dimension)

    def forward(
        self, tokens: Float[Tensor, "batch cells dimension"], grid: Grid
    ) -> Float[Tensor, "batch cells dimension"]:
        tokens = tokens + resize_positional_embedding(self.positional_emb, self.grid, grid)
        for block in self.blocks:
            tokens = block(tokens)
        return self.norm(tokens)


class _Block(nn.Module):
    """Encoder layer whose second residual starts after `norm1`, unlike in most transformers."""

    def __init__(self, variant: Variant) -> None:
        super().__init__()
        hidden = variant.dimension * variant.mlp_ratio
        self.pre_norm = nn.LayerNorm(variant.dimension)
        self.self_attn = _Attention(variant.dimension, variant.heads)
        self.norm1 = nn.LayerNorm(variant.dimension)
        self.linear1 = nn.Linear(variant.dimension, hidden)
        self.linear2 = nn.Linear(hidden, variant.dimension)

    def forward(self, tokens: Float[Tensor, "batch cells dimension"]) -> Float[Tensor, "batch cells dimension"]:
        tokens = self.norm1(tokens + self.self_attn(self.pre_norm(tokens)))
        return tokens + self.linear2(functional.gelu(self.linear1(tokens)))


class _Attention(nn.Module):
    def __init__(self, dimension: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(dimension, 3 * dimension, bias=False)
        self.proj = nn.Linear(dimension, dimension)

    def forward(self, tokens: Float[Tensor, "batch cells dimension"]) -> Float[Tensor, "batch cells dimension"]:
        split = self.qkv(tokens).unflatten(-1, (3, self.heads, -1))
        query, key, value = split.permute(2, 0, 3, 1, 4)
        attended = functional.scaled_dot_product_attention(query, key, value)
        return self.proj(attended.transpose(1, 2).flatten(2))


def _initialise(module: nn.Module) -> None:
    if isinstance(module, nn.Linear):
        nn.init.trunc_normal_(module.weight, std=0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
    elif isinstance(module, nn.Conv2d):
        nn.init.kaiming_normal_(module.weight)
