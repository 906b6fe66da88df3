"""VLAD of tokens joined with a VLAD of the descriptors of a local head, projected together to a short vector.

Tokens of a network trained for classification encode the content of an image; descriptors trained for matching encode
finer structure, and their reliabilities predict which cells will be seen again. Each VLAD finds places that the other
misses. The head is a copy, so that training the head of the local map does not change retrieval.

Source: Jegou and Chum, "Negative evidences and co-occurences in image retrieval: the benefit of PCA and whitening",
ECCV 2012, section 4 (several vocabularies, joined and reduced together).
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from vpr_dhe.features.aggregators.vlad import NetVlad, Projected, Vlad, VladSizes
from vpr_dhe.features.base import DenseTokens
from vpr_dhe.features.local_head import LocalHead, LocalHeadSizes

_UNPROJECTED, _HEAD = VladSizes(dimension=0), LocalHeadSizes()


@dataclass(frozen=True)
class JointVladSizes:
    """Sizes of both VLADs, which have no projection of their own, and the dimension of the result.

    Args:
        tokens: sizes of the VLAD of tokens.
        local: sizes of the VLAD of the head's descriptors, with the same number of bands.
        head: sizes of the head.
        dimension: length of the descriptor; 0 omits the projection.
    """

    tokens: VladSizes = _UNPROJECTED
    local: VladSizes = _UNPROJECTED
    head: LocalHeadSizes = _HEAD
    dimension: int = 768

    @property
    def unprojected(self) -> int:
        """Dimension before the projection."""
        return self.tokens.unprojected + self.local.unprojected

    @classmethod
    def of(cls, state: Mapping[str, Tensor]) -> "JointVladSizes":
        """Infer the sizes from the shapes of an aggregator's tensors; default sizes where there are none."""
        matrices = ("projection", "tokens.centres", "local.centres")
        if any(name not in state or state[name].ndim != 2 for name in matrices):
            return cls()
        dimension, unprojected = state["projection"].shape
        one_band = state["tokens.centres"].numel() + state["local.centres"].numel()
        bands = max(1, unprojected // max(1, one_band))
        tokens, local = (
            VladSizes(words, bands, reduced, dimension=0)
            for words, reduced in (state["tokens.centres"].shape, state["local.centres"].shape)
        )
        head = {name.removeprefix("head."): value for name, value in state.items() if name.startswith("head.")}
        return cls(tokens, local, LocalHeadSizes.of(head), dimension)


class JointVlad(Projected):
    """NetVLAD of tokens and VLAD of descriptors weighted by reliability, joined and projected: x -> W x - offset.

    The result is not normalised. All tensors are trainable and initialised at random.

    Args:
        dimension: width of the tokens.
        sizes: numbers of words and bands, and dimensions.
    """

    def __init__(self, dimension: int, sizes: JointVladSizes) -> None:
        super().__init__()
        self.sizes = sizes
        self.tokens = NetVlad(dimension, sizes.tokens)
        self.head = LocalHead(dimension, sizes.head)
        self.local = Vlad(sizes.head.dimension, sizes.local)
        self._add_projection(sizes.dimension, sizes.unprojected)

    def unprojected(self, tokens: DenseTokens) -> Float[Tensor, "batch unprojected"]:
        """Aggregate tokens and descriptors to two concatenated unit vectors per image, before the projection."""
        descriptors, logits = self.head.cells(tokens.patches, tokens.grid)
        local = self.local.of_cells(descriptors, tokens.grid, logits.sigmoid())
        return torch.cat([self.tokens.unprojected(tokens), local], dim=1)
