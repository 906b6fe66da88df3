"""Generalised-mean pooling followed by a linear layer, as in CosPlace and EigenPlaces."""

from collections.abc import Mapping

from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from vpr_dhe.features.aggregators.gem import GeM
from vpr_dhe.features.base import Aggregator, DenseTokens


class GeMLinear(Aggregator):
    """GeM of L2-normalised cells, a linear layer, and L2 normalisation.

    Args:
        dimension: width of the tokens.
        output_dimension: length of the descriptor.

    Source: Berton et al., "Rethinking Visual Geo-localization for Large-Scale Applications", CVPR 2022, section 4.
    """

    def __init__(self, dimension: int, output_dimension: int) -> None:
        super().__init__()
        self.pool = GeM(unit_cells=True)
        self.linear = nn.Linear(dimension, output_dimension)

    def forward(self, tokens: DenseTokens) -> Float[Tensor, "batch output_dimension"]:
        """Pool and project the patch tokens."""
        return functional.normalize(self.linear(self.pool(tokens)), dim=1)


def gem_linear_of(dimension: int, state: Mapping[str, Tensor]) -> GeMLinear:
    """Build the aggregator with the output size of a state, or the input size if the state is empty."""
    weight = state.get("linear.weight")
    return GeMLinear(dimension, dimension if weight is None else weight.shape[0])
