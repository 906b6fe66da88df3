"""Aggregation tokens as global descriptor."""

from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import normalize

from vpr_dhe.errors import ModelError
from vpr_dhe.features.base import Aggregator, DenseTokens


class AggregationTokens(Aggregator):
    """Aggregation tokens of the backbone, one after the other, scaled to unit norm.

    Raises:
        ModelError: when called on tokens of a backbone without aggregation tokens.

    Source: Lu et al., "Towards implicit aggregation", NeurIPS 2025 (ImAge).
    """

    def forward(self, tokens: DenseTokens) -> Float[Tensor, "batch dimension"]:
        """Concatenate the tokens."""
        if tokens.aggregation_tokens is None:
            raise ModelError(
                "the aggregator `aggregation-tokens` needs such tokens and this backbone has none; choose the backbone "
                "imagevpr:NAME"
            )
        return normalize(tokens.aggregation_tokens.flatten(1), dim=1)
