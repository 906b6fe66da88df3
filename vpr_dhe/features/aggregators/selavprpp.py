"""Aggregator of SelaVPR++: GeM between two linear layers.

Source: Lu et al., "SelaVPR++: Towards seamless adaptation of foundation models for efficient place recognition", TPAMI
2025; https://github.com/Lu-Feng/SelaVPRplusplus.
"""

from collections.abc import Mapping

from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import normalize

from vpr_dhe.features.aggregators.gem import GeM
from vpr_dhe.features.base import Aggregator, DenseTokens

_DIMENSION = 2048


class SelaVprPPAggregator(Aggregator):
    """GeM of linearly mapped cells, scaled to unit norm, and a linear layer; the result is of unit norm.

    Mapped cells have both signs, of which GeM clamps the negative one.

    Args:
        dimension: width of the tokens.
        out: length of the descriptor.
    """

    def __init__(self, dimension: int, out: int = _DIMENSION) -> None:
        super().__init__()
        self.linear1 = nn.Linear(dimension, dimension)
        self.pool = GeM(unit_cells=True)
        self.linear2 = nn.Linear(dimension, out)

    def forward(self, tokens: DenseTokens) -> Float[Tensor, "batch dimension"]:
        """Pool the patch tokens."""
        cells = DenseTokens(self.linear1(tokens.patches), tokens.grid)
        return normalize(self.linear2(self.pool(cells)), dim=1)


def build_selavprpp(dimension: int, state: Mapping[str, Tensor]) -> SelaVprPPAggregator:
    """Build the aggregator with the length of descriptor that the shapes of its tensors tell, or the default."""
    return SelaVprPPAggregator(dimension, len(state["linear2.bias"]) if "linear2.bias" in state else _DIMENSION)
