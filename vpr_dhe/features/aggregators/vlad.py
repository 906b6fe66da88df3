"""VLAD and NetVLAD of horizontal bands of the image, projected to a short vector.

Source: Jegou et al., "Aggregating local descriptors into a compact image representation", CVPR 2010 (VLAD);
Arandjelovic and Zisserman, "All about VLAD", CVPR 2013 (intra-normalisation); Delhumeau et al., "Revisiting the VLAD
image representation", ACM MM 2013 (normalised residuals); Arandjelovic et al., "NetVLAD: CNN architecture for weakly
supervised place recognition", CVPR 2016; Keetha et al., "AnyLoc: Towards universal visual place recognition", RA-L 2023
(VLAD of pretrained transformers).
"""

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from vpr_dhe.features.base import Aggregator, DenseTokens
from vpr_dhe.features.vlad import band_weights
from vpr_dhe.records import Grid


@dataclass(frozen=True)
class VladSizes:
    """Sizes of a VLAD.

    Args:
        words: number of visual words.
        bands: number of horizontal bands of the image.
        reduced: dimension in which cells are compared with words; at most that of the tokens.
        dimension: length of the descriptor; 0 omits the projection.
    """

    words: int = 64
    bands: int = 2
    reduced: int = 64
    dimension: int = 384

    @property
    def unprojected(self) -> int:
        """Dimension before the projection."""
        return self.words * self.bands * self.reduced

    @classmethod
    def of(cls, state: Mapping[str, Tensor]) -> "VladSizes":
        """Infer the sizes from the shapes of an aggregator's tensors; default sizes where there are none."""
        if any(name not in state or state[name].ndim != 2 for name in ("centres", "projection")):
            return cls()
        words, reduced = state["centres"].shape
        dimension, unprojected = state["projection"].shape
        return cls(words, max(1, unprojected // max(1, words * reduced)), reduced, dimension)


class Projected(Aggregator):
    """Aggregation to one vector per image, projected: x -> W x - offset, not normalised."""

    projection: nn.Parameter
    offset: nn.Parameter

    def forward(self, tokens: DenseTokens) -> Float[Tensor, "batch dimension"]:
        """Aggregate and project the patch tokens."""
        return functional.linear(self.unprojected(tokens), self.projection, -self.offset)

    @abstractmethod
    def unprojected(self, tokens: DenseTokens) -> Float[Tensor, "batch unprojected"]:
        """Aggregate the patch tokens, before the projection."""

    def _add_projection(self, dimension: int, unprojected: int) -> None:
        """Add a random projection to `dimension` dimensions; none if that is 0."""
        if dimension:
            self.projection = nn.Parameter(torch.randn(dimension, unprojected) * unprojected**-0.5)
            self.offset = nn.Parameter(torch.zeros(dimension))


class BandedVlad(Projected):
    """VLAD of each band and word, intra-normalised, concatenated, scaled to unit norm and projected: x -> W x - offset.

    Cells are scaled to unit norm, centred and projected by `whitening` to the space of the words, `centres`. Bands
    overlap softly; see `band_weights`. The result is not normalised. All tensors are trainable and initialised at
    random.

    Args:
        dimension: width of the tokens.
        sizes: numbers of words and bands, and dimensions.
    """

    def __init__(self, dimension: int, sizes: VladSizes) -> None:
        super().__init__()
        reduced = sizes.reduced
        self.bands = sizes.bands
        self.mean = nn.Parameter(torch.zeros(dimension))
        self.whitening = nn.Parameter(torch.eye(dimension, reduced))
        self.centres = nn.Parameter(functional.normalize(torch.randn(sizes.words, reduced), dim=1))
        self._add_projection(sizes.dimension, sizes.unprojected)

    def unprojected(self, tokens: DenseTokens) -> Float[Tensor, "batch unprojected"]:
        """Aggregate the patch tokens to one unit vector per image, before the projection."""
        return self.of_cells(tokens.patches, tokens.grid)

    def of_cells(
        self,
        cells: Float[Tensor, "batch cells dimension"],
        grid: Grid,
        weights: Float[Tensor, "batch cells"] | None = None,
    ) -> Float[Tensor, "batch unprojected"]:
        """Aggregate cells, with equal weights by default, to one unit vector per image, before the projection."""
        points = self.points(cells)
        in_bands = band_weights(_heights(grid, points), self.bands)
        cell_weights = in_bands if weights is None else weights[:, None] * in_bands
        blocks = functional.normalize(self._blocks(points, cell_weights), dim=-1)  # empty blocks stay zero
        return functional.normalize(blocks.flatten(1), dim=1)

    def points(self, cells: Float[Tensor, "*batch dimension"]) -> Float[Tensor, "*batch reduced"]:
        """Project cells to the space of the words."""
        return (functional.normalize(cells, dim=-1) - self.mean) @ self.whitening

    @abstractmethod
    def _blocks(
        self, points: Float[Tensor, "batch cells reduced"], in_bands: Float[Tensor, "*batch bands cells"]
    ) -> Float[Tensor, "batch blocks reduced"]:
        """Sum residuals per band and word, without normalisation."""


class Vlad(BandedVlad):
    """VLAD with hard assignment of cells to words and residuals of unit norm, as in `sift-vlad`."""

    def _blocks(
        self, points: Float[Tensor, "batch cells reduced"], in_bands: Float[Tensor, "*batch bands cells"]
    ) -> Float[Tensor, "batch blocks reduced"]:
        nearest = (points @ self.centres.T - self.centres.square().sum(1) / 2).argmax(-1)
        membership = functional.one_hot(nearest, len(self.centres)).to(points.dtype)
        residuals = functional.normalize(points - membership @ self.centres, dim=-1)
        return _in_blocks(membership, in_bands) @ residuals


class NetVlad(BandedVlad):
    """VLAD with soft assignment, softmax of `assignment` over the words (NetVLAD, equations 3 and 4)."""

    def __init__(self, dimension: int, sizes: VladSizes) -> None:
        super().__init__(dimension, sizes)
        self.assignment = nn.Linear(sizes.reduced, sizes.words)

    def _blocks(
        self, points: Float[Tensor, "batch cells reduced"], in_bands: Float[Tensor, "*batch bands cells"]
    ) -> Float[Tensor, "batch blocks reduced"]:
        weights = _in_blocks(self.assignment(points).softmax(-1), in_bands)
        return weights @ points - weights.sum(-1, keepdim=True) * self.centres.repeat(self.bands, 1)


def assignment_of(
    centres: Float[Tensor, "words reduced"], alpha: float
) -> tuple[Float[Tensor, "words reduced"], Float[Tensor, " words"]]:
    """Compute weights and biases of the soft assignment softmax(-alpha |x - c|^2) (NetVLAD, equation 3)."""
    return 2 * alpha * centres, -alpha * centres.square().sum(1)


def _heights(grid: Grid, like: Tensor) -> Float[Tensor, " cells"]:
    """Vertical positions of the centres of cells, row-major, from 0 at the top of the image to 1 at its bottom."""
    rows = (torch.arange(grid.rows, device=like.device, dtype=like.dtype) + 0.5) / grid.rows
    return rows.repeat_interleave(grid.columns)


def _in_blocks(
    membership: Float[Tensor, "batch cells words"], in_bands: Float[Tensor, "*batch bands cells"]
) -> Float[Tensor, "batch blocks cells"]:
    """Weight of each cell in each block of one band and word."""
    return (in_bands[..., None, :] * membership.mT[:, None]).flatten(1, 2)
