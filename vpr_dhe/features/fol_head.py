"""Local head of FoL: finer descriptors of the most reliable cells.

Source: Wang et al., "Focus on Local: Finding reliable discriminative regions for visual place recognition", AAAI 2025;
https://github.com/chenshunpeng/FoL.
"""

from collections.abc import Mapping

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional

from vpr_dhe.errors import ModelError
from vpr_dhe.features.base import LocalMapHead
from vpr_dhe.records import Grid

FOL = "fol"
"""Name of the head in model files."""

_HIDDEN, _DIMENSION = 256, 128
_SIDE, _STRIDE = 3, 2
_KEPT_CELLS = 225


class FoLHead(LocalMapHead):
    """Descriptors on a grid of 4 n - 3 cells for n tokens per side, by two transposed convolutions.

    Descriptors of the 225 most confident tokens are kept; others are zero. The centres of the outer cells are those of
    the outer tokens, but cells of a local map are assumed to partition the input evenly. Points are therefore too far
    from the centre in both images, by 3 % for 23 tokens.

    Args:
        dimension: width of the tokens.
        hidden: channels between the convolutions.
        out: length of the descriptors.

    Raises:
        ModelError: when called without confidences.
    """

    def __init__(self, dimension: int, hidden: int = _HIDDEN, out: int = _DIMENSION) -> None:
        super().__init__()
        self.upconv = nn.ConvTranspose2d(dimension, hidden, _SIDE, _STRIDE, padding=1)
        self.upconv2 = nn.ConvTranspose2d(hidden, out, _SIDE, _STRIDE, padding=1)

    def forward(
        self,
        tokens: Float[Tensor, "batch cells dimension"],
        grid: Grid,
        confidence: Float[Tensor, "batch cells"] | None = None,
    ) -> Float[Tensor, "batch local_cells local"]:
        """Compute the local map."""
        if confidence is None:
            raise ModelError("the local head `fol` needs an aggregator that returns its confidence; choose fol")
        maps = tokens.mT.unflatten(2, (grid.rows, grid.columns))
        descriptors = functional.normalize(self.upconv2(self.upconv(maps).relu()), dim=1)
        kept = _most_confident(confidence).unflatten(1, (grid.rows, grid.columns))[:, None]
        nearest = functional.interpolate(kept.to(descriptors.dtype), tuple(self.grid_for(grid)), mode="nearest")
        return (descriptors * nearest).flatten(2).mT

    def grid_for(self, grid: Grid) -> Grid:
        """Grid of local maps for a grid of tokens."""
        return Grid(4 * grid.rows - 3, 4 * grid.columns - 3)


def build_fol_head(dimension: int, state: Mapping[str, Tensor]) -> FoLHead:
    """Build the head with the sizes inferred from its tensors, or the default."""
    if "upconv2.weight" not in state:
        return FoLHead(dimension)
    hidden, out = state["upconv2.weight"].shape[:2]
    return FoLHead(dimension, hidden, out)


def _most_confident(confidence: Float[Tensor, "batch cells"]) -> Bool[Tensor, "batch cells"]:
    cells = confidence.shape[1]
    chosen = confidence.topk(min(_KEPT_CELLS, cells)).indices
    return torch.zeros_like(confidence).scatter(1, chosen, 1.0) > 0
