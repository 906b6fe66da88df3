"""Generalised-mean pooling of horizontal bands of the image, followed by whitening."""

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from vpr_dhe.features.aggregators.gem import GeM
from vpr_dhe.features.base import Aggregator, DenseTokens


class WhitenedGeM(Aggregator):
    """GeM of horizontal bands, concatenated, scaled to unit norm and projected: x -> W x - W m.

    Bands separate the upper from the lower parts of upright images. `projection` is W and `offset` W m, with m the mean
    of many images; both are learned, and initially select the first band. The result has the dimension of a token and
    is not normalised.

    Args:
        dimension: width of the tokens.
        bands: number of bands, whose heights differ by at most one row.

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
        """Pool the bands to one unit vector per image, before the projection."""
        rows = tokens.patches.unflatten(1, (tokens.grid.rows, tokens.grid.columns))
        bands = [band.flatten(1, 2) for band in rows.tensor_split(self.bands, dim=1)]
        pooled = [self.pool(DenseTokens(band, tokens.grid)) for band in bands]
        return functional.normalize(torch.cat(pooled, dim=1), dim=1)
