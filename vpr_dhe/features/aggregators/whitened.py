"""Generalised-mean pooling of bands of the image, whitened: what most images have in common counts less."""

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from vpr_dhe.features.aggregators.gem import GeM
from vpr_dhe.features.base import Aggregator, DenseTokens


class WhitenedGeM(Aggregator):
    """GeM of each of some horizontal bands, together brought to unit length, then projected: x -> W x - W m.

    Bands tell what is high from what is low, which a camera on a street seldom turns around. `projection` is W and
    `offset` W m, with m the mean of many images; both are learned, and at first keep the first band alone. The result
    has as many dimensions as a token, and is not normalised.

    Args:
        dimension: of the tokens.
        bands: how many, of as many rows each, down to one row more or less.

    Source: Radenovic et al., "Fine-tuning CNN image retrieval with no human annotation", TPAMI 2019, section 3.4.
    """

    def __init__(self, dimension: int, bands: int) -> None:
        super().__init__()
        self.bands = bands
        self.pool = GeM()
        self.projection = nn.Parameter(torch.eye(dimension, bands * dimension))
        self.offset = nn.Parameter(torch.zeros(dimension))

    def forward(self, tokens: DenseTokens) -> Float[Tensor, "batch dimension"]:
        """Pool and project the patch tokens."""
        return functional.linear(self.pooled(tokens), self.projection, -self.offset)

    def pooled(self, tokens: DenseTokens) -> Float[Tensor, "batch pooled"]:
        """What is projected: unit vectors."""
        rows = tokens.patches.unflatten(1, (tokens.grid.rows, tokens.grid.columns))
        bands = [band.flatten(1, 2) for band in rows.tensor_split(self.bands, dim=1)]
        pooled = [self.pool(DenseTokens(band, tokens.grid)) for band in bands]
        return functional.normalize(torch.cat(pooled, dim=1), dim=1)
