"""Aggregator of FoL: SALAD with a dustbin for cells that the class token does not attend to.

Source: Wang et al., "Focus on Local: Finding reliable discriminative regions for visual place recognition", AAAI 2025;
https://github.com/chenshunpeng/FoL.
"""

from jaxtyping import Float
from torch import Tensor

from vpr_dhe.errors import ModelError
from vpr_dhe.features.aggregators.salad import Transport
from vpr_dhe.features.base import DenseTokens

_MIN_ATTENTION = 0.01


class FoLAggregator(Transport):
    """Transport of cells to clusters; cells without attention go to the dustbin. See `Transport`.

    Raises:
        ModelError: when called on tokens of a backbone that returns no attention.
    """

    def dustbin(self, tokens: DenseTokens) -> Float[Tensor, "batch cells"]:
        """One minus the attention of the class token; attention below 0.01 counts as zero."""
        attention = tokens.class_attention
        if attention is None:
            raise ModelError(
                "the aggregator `fol` needs the attention of the class token; choose the backbone fol:NAME"
            )
        return 1 - attention * (attention >= _MIN_ATTENTION)

    def confidence(self, tokens: DenseTokens) -> Float[Tensor, "batch cells"]:
        """Share of each cell that goes to clusters, high in reliable regions."""
        return self.plan(tokens).mean(1)
