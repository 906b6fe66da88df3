"""Average pooling."""

from jaxtyping import Float
from torch import Tensor

from vpr_dhe.features.base import Aggregator, DenseTokens


class Mean(Aggregator):
    """Mean of the patch tokens, not normalised."""

    def forward(self, tokens: DenseTokens) -> Float[Tensor, "batch dimension"]:
        """Average the patch tokens."""
        return tokens.patches.mean(dim=1)
