"""Class token as global descriptor."""

from jaxtyping import Float
from torch import Tensor

from vpr_dhe.errors import ModelError
from vpr_dhe.features.base import Aggregator, DenseTokens


class ClassToken(Aggregator):
    """Class token of the backbone, not normalised.

    Raises:
        ModelError: when called on tokens of a backbone without a class token.
    """

    def forward(self, tokens: DenseTokens) -> Float[Tensor, "batch dimension"]:
        """Return the class token."""
        if tokens.class_token is None:
            raise ModelError("the aggregator `cls` needs a class token and this backbone has none; choose gem or mean")
        return tokens.class_token
