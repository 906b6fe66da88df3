"""Feature mixing of MixVPR."""

import re
from collections.abc import Mapping
from typing import NamedTuple

from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from vpr_dhe.errors import ModelError
from vpr_dhe.features.base import Aggregator, DenseTokens


class MixSizes(NamedTuple):
    """Sizes of MixVPR: number of cells and of mixing layers, and the shape of the descriptor before flattening."""

    cells: int = 400
    depth: int = 4
    channels: int = 256
    rows: int = 2

    @classmethod
    def of(cls, state: Mapping[str, Tensor]) -> "MixSizes":
        """Infer the sizes from a state; sizes of the published 512-dimensional model if it is empty."""
        if "row_proj.weight" not in state:
            return cls()
        numbers = [int(found[1]) for key in state if (found := re.match(r"mix\.(\d+)\.", key))]
        rows, cells = state["row_proj.weight"].shape
        return cls(cells, max(numbers, default=-1) + 1, state["channel_proj.weight"].shape[0], rows)


class MixVpr(Aggregator):
    """Layers that mix the cells of each channel, projections of channels and of cells, and L2 normalisation.

    The number of cells is fixed by the weights. The descriptor has `channels` x `rows` dimensions, channel by channel.

    Raises:
        ModelError: when called on tokens of another number of cells.

    Source: Ali-bey et al., "MixVPR: Feature Mixing for Visual Place Recognition", WACV 2023, section 3.
    """

    def __init__(self, dimension: int, sizes: MixSizes) -> None:
        super().__init__()
        self.sizes = sizes
        self.mix = nn.Sequential(*(_Mixing(sizes.cells) for _ in range(sizes.depth)))
        self.channel_proj = nn.Linear(dimension, sizes.channels)
        self.row_proj = nn.Linear(sizes.cells, sizes.rows)

    def forward(self, tokens: DenseTokens) -> Float[Tensor, "batch descriptor"]:
        """Mix and project the patch tokens."""
        if tokens.patches.shape[1] != self.sizes.cells:
            raise ModelError(
                f"the aggregator `mixvpr` was made for {self.sizes.cells} cells, not {tokens.patches.shape[1]}; "
                "keep the input size of the model"
            )
        mixed = self.mix(tokens.patches.mT)
        projected = self.row_proj(self.channel_proj(mixed.mT).mT)
        return functional.normalize(projected.flatten(1), dim=1)


class _Mixing(nn.Module):
    """Residual perceptron over the cells of one channel."""

    def __init__(self, cells: int) -> None:
        super().__init__()
        layers = (nn.LayerNorm(cells), nn.Linear(cells, cells), nn.ReLU(), nn.Linear(cells, cells))
        self.mix = nn.Sequential(*layers)

    def forward(self, maps: Float[Tensor, "batch dimension cells"]) -> Float[Tensor, "batch dimension cells"]:
        return maps + self.mix(maps)
