"""What an extractor is, and the two roles that a learned one is composed of."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple, TypeAlias

from jaxtyping import Float
from torch import Tensor, nn

from vpr_dhe.images import image_size
from vpr_dhe.models.exported_model import ExportedModel
from vpr_dhe.models.model_file import ModelFile
from vpr_dhe.records import Features, Frame, Grid, Image, Size

Precision: TypeAlias = Literal["fp32", "bf16"]
"""Of a backbone's matrix products; all that follows them is computed in single precision."""


@dataclass(frozen=True)
class ExtractorSpec:
    """What an index must know of the extractor that filled it.

    `fingerprint` is a SHA-256 over weights and preprocessing: features of different fingerprints cannot be compared.
    Those of different precisions can, as can those of different devices and runtimes, so it does not tell these apart.
    `unit_norm` says whether global descriptors are L2-normalised before indexing, `tolerance_cells` up to which
    reprojection error, in cells of the grid, a match counts as an inlier.
    """

    model: str
    fingerprint: str
    dimension: int
    local_dimension: int
    grid: Grid
    input_size: Size
    unit_norm: bool
    tolerance_cells: float


class Extractor(ABC):
    """Turns images into features; `model_file` is what it was loaded from, the export where it is one."""

    spec: ExtractorSpec
    model_file: ModelFile | ExportedModel

    @abstractmethod
    def extract(self, images: Sequence[Image]) -> list[Features]:
        """Describe each image; the result does not depend on which other images are in the batch."""


class DenseFeatures(NamedTuple):
    """A batch of images: their vectors, and their local maps of unit-norm cells."""

    vectors: Float[Tensor, "batch dimension"]
    local_maps: Float[Tensor, "batch cells local_dimension"]
    grid: Grid

    def features(self, images: Sequence[Image], input_size: Size) -> list[Features]:
        """Take the batch apart; `images` are those described, before they were squeezed to `input_size`."""
        return [
            Features(vector, local_map, self.grid, Frame(image_size(image), input_size))
            for vector, local_map, image in zip(self.vectors, self.local_maps, images, strict=True)
        ]


@dataclass(frozen=True)
class DenseTokens:
    """What a backbone makes of a batch: one token per cell, row-major, and a class token where it has one."""

    patches: Float[Tensor, "batch cells dimension"]
    grid: Grid
    class_token: Float[Tensor, "batch dimension"] | None = None


class Backbone(nn.Module, ABC):
    """A network from normalised images to dense tokens of width `dimension`.

    `convolutional` says that it is faster where the channels of an image come last in memory.
    """

    dimension: int
    convolutional = False

    @abstractmethod
    def forward(self, images: Float[Tensor, "batch 3 height width"]) -> DenseTokens:
        """Compute the tokens."""


class Aggregator(nn.Module, ABC):
    """A pooling of dense tokens into one vector per image."""

    @abstractmethod
    def forward(self, tokens: DenseTokens) -> Float[Tensor, "batch dimension"]:
        """Pool the tokens."""
