"""The correlation volume of dense maps, batched over pairs."""

from jaxtyping import Float
from torch import Tensor


def correlation_volume(
    a: Float[Tensor, "#pairs cells_a dimension"], b: Float[Tensor, "#pairs cells_b dimension"]
) -> Float[Tensor, "pairs cells_b cells_a"]:
    """Inner products of every cell of B (rows) with every cell of A (columns); a batch of one is broadcast."""
    return b @ a.mT
