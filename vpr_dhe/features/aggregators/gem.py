"""Generalised-mean pooling with a learned exponent."""

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from vpr_dhe.features.base import Aggregator, DenseTokens


class GeM(Aggregator):
    """Generalised mean (1/n sum x^p)^(1/p) of the cells, per dimension; the result is not normalised.

    With `unit_cells` each cell is scaled to unit norm first, as in DHE-VPR and the CCT models of the visual
    geo-localization benchmark; otherwise this is GeM as proposed. `p` starts at 3 and is learned.

    Source: Radenovic et al., "Fine-tuning CNN image retrieval with no human annotation", TPAMI 2019, equation 3.
    """

    def __init__(self, *, unit_cells: bool = False, eps: float = 1e-6) -> None:
        super().__init__()
        self.unit_cells, self.eps = unit_cells, eps
        self.p = nn.Parameter(torch.full((1,), 3.0))

    def forward(self, tokens: DenseTokens) -> Float[Tensor, "batch dimension"]:
        """Pool the patch tokens."""
        cells = functional.normalize(tokens.patches, dim=-1) if self.unit_cells else tokens.patches
        return cells.clamp(min=self.eps).pow(self.p).mean(dim=1).pow(1 / self.p)
