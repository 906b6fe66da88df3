"""Correlation volume of dense maps, batched over pairs."""

from jaxtyping import Float
from torch import Tensor


def correlation_volume(
    a: Float[Tensor, "#pairs cells_a dimension"], b: Float[Tensor, "#pairs cells_b dimension"]
) -> Float[Tensor, "pairs cells_b cells_a"]:
    """Compute inner products of all cells of B (rows) with all cells of A (columns); a batch of one is broadcast."""
    return b @ a.mT
