"""Aggregator of SelaVPR++: GeM between two linear layers, for descriptors and, in some models, for binary codes.

Source: Lu et al., "SelaVPR++: Towards seamless adaptation of foundation models for efficient place recognition", TPAMI
2025; https://github.com/Lu-Feng/SelaVPRplusplus.
"""

from collections.abc import Mapping

from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import normalize

from vpr_dhe.errors import ModelError
from vpr_dhe.features.aggregators.gem import GeM
from vpr_dhe.features.base import Aggregator, DenseTokens

_DIMENSION = 2048


class SelaVprPPAggregator(Aggregator):
    """GeM of linearly mapped cells, scaled to unit norm, and a linear layer; the result has unit norm.

    GeM clamps negative values of the mapped cells.

    Args:
        dimension: width of the tokens.
        out: length of the descriptor.
        code_bits: length of the binary code; 0 without codes.
    """

    def __init__(self, dimension: int, out: int = _DIMENSION, code_bits: int = 0) -> None:
        super().__init__()
        self._has_codes = code_bits > 0
        if code_bits:
            self.linear3 = nn.Linear(dimension, dimension)
            self.code_pool = GeM(unit_cells=True)
            self.linear4 = nn.Linear(dimension, code_bits)
        self.linear1 = nn.Linear(dimension, dimension)
        self.pool = GeM(unit_cells=True)
        self.linear2 = nn.Linear(dimension, out)

    def forward(self, tokens: DenseTokens) -> Float[Tensor, "batch dimension"]:
        """Pool the patch tokens."""
        cells = DenseTokens(self.linear1(tokens.patches), tokens.grid)
        return normalize(self.linear2(self.pool(cells)), dim=1)

    def code_values(self, tokens: DenseTokens) -> Float[Tensor, "batch bits"] | None:
        """Pool the tokens of the code branch in the same way; the signs of the result are the code.

        Raises:
            ModelError: if the backbone has no such branch.
        """
        if not self._has_codes:
            return None
        if tokens.code_patches is None:
            raise ModelError(
                "this aggregator makes binary codes and this backbone has no branch for them; import again"
            )
        cells = DenseTokens(self.linear3(tokens.code_patches), tokens.grid)
        return normalize(self.linear4(self.code_pool(cells)), dim=1)


def build_selavprpp(dimension: int, state: Mapping[str, Tensor]) -> SelaVprPPAggregator:
    """Build the aggregator with the sizes inferred from its tensors, or the default, without codes."""
    out = len(state["linear2.bias"]) if "linear2.bias" in state else _DIMENSION
    return SelaVprPPAggregator(dimension, out, len(state["linear4.bias"]) if "linear4.bias" in state else 0)
