"""Interfaces of extractors, backbones, aggregators and local heads."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn

from vpr_dhe.features.texture import without_blank_cells
from vpr_dhe.images.loading import image_size
from vpr_dhe.images.preprocessing import by_input_size, to_network_input
from vpr_dhe.models.exported_model import ExportedModel
from vpr_dhe.models.model_file import ModelFile
from vpr_dhe.records import Features, Frame, Grid, Image, Preprocessing, Size


@dataclass(frozen=True)
class ExtractorSpec:
    """Properties of an extractor that an index stores.

    Args:
        model: name or path of the model.
        fingerprint: SHA-256 of weights and preprocessing. Features with different fingerprints cannot be compared.
            Precision, device and runtime do not change the fingerprint.
        dimension: length of global descriptors.
        local_dimension: length of the descriptors in local maps.
        grid: cells of local maps.
        input_size: input size in pixels.
        unit_norm: whether global descriptors are L2-normalised before indexing.
        tolerance_cells: largest reprojection error of an inlier, in cells of the grid.
        code_bits: length of binary codes, a multiple of eight; 0 without codes.
    """

    model: str
    fingerprint: str
    dimension: int
    local_dimension: int
    grid: Grid
    input_size: Size
    unit_norm: bool
    tolerance_cells: float
    code_bits: int = 0


class Extractor(ABC):
    """Extractor of features; `model_file` is the model file or export that it was loaded from.

    `arithmetic` names runtime, device and precision, between which features of one model differ in their last digits.
    """

    spec: ExtractorSpec
    model_file: ModelFile | ExportedModel
    arithmetic: str = "cpu"

    @abstractmethod
    def extract(self, images: Sequence[Image]) -> list[Features]:
        """Extract the features of each image; they do not depend on the other images in the batch.

        A cell with a zero descriptor matches nothing; `texture.without_blank_cells` zeroes cells without texture.
        """


class DenseFeatures(NamedTuple):
    """Global descriptors and local maps (unit-norm cells) of a batch of images.

    The signs of `code_values` are the bits of binary codes; None for models without codes.
    """

    vectors: Float[Tensor, "batch dimension"]
    local_maps: Float[Tensor, "batch cells local_dimension"]
    grid: Grid
    code_values: Float[Tensor, "batch bits"] | None = None

    def features(self, images: Sequence[Image], input_size: Size) -> list[Features]:
        """Split the batch; `images` are the decoded images, which were resized to `input_size`.

        Cells without texture get the descriptor zero.
        """
        codes = [None] * len(images) if self.code_values is None else packed_signs(self.code_values)
        return [
            Features(
                vector,
                without_blank_cells(local_map, image, self.grid),
                self.grid,
                Frame(image_size(image), input_size),
                code,
            )
            for vector, local_map, image, code in zip(self.vectors, self.local_maps, images, codes, strict=True)
        ]


def packed_signs(values: Float[Tensor, "batch bits"]) -> UInt8[Tensor, "batch code_bytes"]:
    """Pack signs into bits (1 where a value is not negative), eight per byte, most significant bit first."""
    bits = (values >= 0).unflatten(1, (-1, 8))
    weights = torch.tensor([128, 64, 32, 16, 8, 4, 2, 1], dtype=torch.uint8, device=values.device)
    return (bits * weights).sum(2, dtype=torch.uint8)


def extract_by_size(
    images: Sequence[Image],
    preprocessing: Preprocessing,
    device: torch.device,
    extract_batch: Callable[[Float[Tensor, "batch 3 height width"]], DenseFeatures],
) -> list[Features]:
    """Extract features of decoded images, with one batch per input size."""
    extracted: dict[int, Features] = {}
    for of_batch, numbers in by_input_size(images, preprocessing).items():
        batch = [images[number] for number in numbers]
        features = extract_batch(to_network_input(batch, of_batch, device))
        extracted |= zip(numbers, features.features(batch, preprocessing.size), strict=True)
    return [extracted[number] for number in range(len(images))]


@dataclass(frozen=True)
class DenseTokens:
    """Output of a backbone for a batch: one token per cell, row-major, and optional further tokens.

    Args:
        patches: tokens of the cells.
        grid: grid of the cells.
        class_token: token of the whole image.
        aggregation_tokens: several learned tokens of the whole image.
        class_attention: attention of the class token to each cell in the last block, summed over its heads.
        code_patches: tokens of the cells for binary codes.
    """

    patches: Float[Tensor, "batch cells dimension"]
    grid: Grid
    class_token: Float[Tensor, "batch dimension"] | None = None
    aggregation_tokens: Float[Tensor, "batch tokens dimension"] | None = None
    class_attention: Float[Tensor, "batch cells"] | None = None
    code_patches: Float[Tensor, "batch cells dimension"] | None = None

    def in_float32(self) -> "DenseTokens":
        """Copy in single precision."""
        tensors = {name: value.float() for name, value in vars(self).items() if isinstance(value, Tensor)}
        return replace(self, **tensors)


class Backbone(nn.Module, ABC):
    """Network from normalised images to dense tokens of width `dimension`.

    `convolutional` says whether it is faster in the channels-last memory format.
    """

    dimension: int
    convolutional = False

    @abstractmethod
    def forward(self, images: Float[Tensor, "batch 3 height width"]) -> DenseTokens:
        """Compute the tokens."""


class Aggregator(nn.Module, ABC):
    """Pooling of dense tokens to one vector per image."""

    @abstractmethod
    def forward(self, tokens: DenseTokens) -> Float[Tensor, "batch dimension"]:
        """Pool the tokens."""

    def confidence(self, tokens: DenseTokens) -> Float[Tensor, "batch cells"] | None:  # noqa: ARG002 (for subclasses)
        """Reliability of each cell for identifying the place; None if the aggregator does not compute it."""
        return None

    def code_values(self, tokens: DenseTokens) -> Float[Tensor, "batch bits"] | None:  # noqa: ARG002 (for subclasses)
        """Values whose signs are the bits of a binary code; None if the aggregator makes no codes."""
        return None


class LocalMapHead(nn.Module, ABC):
    """Network from patch tokens to local maps."""

    @abstractmethod
    def forward(
        self,
        tokens: Float[Tensor, "batch cells dimension"],
        grid: Grid,
        confidence: Float[Tensor, "batch cells"] | None = None,
    ) -> Float[Tensor, "batch local_cells local"]:
        """Compute local maps: one row per cell of `grid_for(grid)`, of unit norm, or zero if it matches nothing.

        `confidence` is the result of `Aggregator.confidence`.
        """

    def grid_for(self, grid: Grid) -> Grid:
        """Grid of the local map for a grid of tokens; the same by default."""
        return grid
