"""Networks of a model in the form that is exported: tensors in, tensors out, with example inputs."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import interpolate, normalize

from vpr_dhe.errors import ModelError
from vpr_dhe.features.base import ExtractorSpec
from vpr_dhe.features.extractor import ExtractorNetwork, NeuralExtractor
from vpr_dhe.models.exported_model import TensorInfo
from vpr_dhe.models.model_file import ModelFile
from vpr_dhe.records import Preprocessing, Size
from vpr_dhe.verification.estimators import dhe, dhe_lite

_FLOAT = "float32"
_EXAMPLE_MATCHES = 50


@dataclass(frozen=True)
class ExportableNetwork:
    """Network whose inputs and outputs are tensors.

    `example` makes the inputs of a batch of a given size, the same on each call.
    """

    module: nn.Module
    inputs: tuple[TensorInfo, ...]
    outputs: tuple[TensorInfo, ...]
    example: Callable[[int], tuple[Tensor, ...]]


def extractor_network(extractor: NeuralExtractor, preprocessing: Preprocessing) -> ExportableNetwork:
    """Make the exportable network of an extractor."""
    spec = extractor.spec
    size, cells = spec.input_size, spec.grid.rows * spec.grid.columns
    compared = (
        "not normalised: L2-normalise it before it is compared by inner product"
        if spec.unit_norm
        else "not normalised: compare it as it is, by Euclidean distance"
    )
    return ExportableNetwork(
        _FeaturesAsTensors(extractor.network),
        (TensorInfo("images", _FLOAT, ("images", 3, size.height, size.width), _input_meaning(preprocessing)),),
        (
            TensorInfo("global_descriptor", _FLOAT, ("images", spec.dimension), compared),
            TensorInfo(
                "local_map",
                _FLOAT,
                ("images", cells, spec.local_dimension),
                f"{spec.grid.rows} x {spec.grid.columns} cells, row-major, each L2-normalised",
            ),
        ),
        lambda images: (_textures(images, size),),
    )


def head_network(model: ModelFile, spec: ExtractorSpec) -> ExportableNetwork:
    """Make the exportable network of a model's head.

    Raises:
        ModelError: if there is no head, or it cannot be exported.
    """
    head = model.architecture.head
    if head is None or head not in HEADS:
        held = "holds no head" if head is None else f"holds the head {head!r}"
        raise ModelError(f"model {model.name!r} {held}; heads that can be exported: {', '.join(HEADS)}")
    return HEADS[head](model, spec)


def _dhe(model: ModelFile, spec: ExtractorSpec) -> ExportableNetwork:
    cells, width = dhe.GRID.rows * dhe.GRID.columns, spec.local_dimension
    row_major = f"local map of {dhe.GRID.rows} x {dhe.GRID.columns} cells, row-major, each L2-normalised"
    points = (
        f"four points (x, y) in pixels of the {{}}, squeezed to {dhe.INPUT_SIZE.width} x {dhe.INPUT_SIZE.height}; "
        "the centre of the top-left pixel is (0, 0)"
    )

    def example(pairs: int) -> tuple[Tensor, ...]:
        query, noise = _random(1, cells, width), _random(pairs, cells, width)
        return normalize(query, dim=-1), normalize(query.roll(26, dims=1) + noise, dim=-1)

    return ExportableNetwork(
        dhe.load_head(model),
        (
            TensorInfo("query_map", _FLOAT, (1, cells, width), f"the query's {row_major}"),
            TensorInfo("candidate_maps", _FLOAT, ("pairs", cells, width), f"each candidate's {row_major}"),
        ),
        (
            TensorInfo("query_points", _FLOAT, ("pairs", 4, 2), points.format("query")),
            TensorInfo("candidate_points", _FLOAT, ("pairs", 4, 2), points.format("candidate")),
        ),
        example,
    )


def _dhe_lite(model: ModelFile, _: ExtractorSpec) -> ExportableNetwork:
    squeezed = f"squeezed to {dhe_lite.UNIT.width} x {dhe_lite.UNIT.height} pixels"
    points = (
        f"(x, y) of each match in the {{}}, {squeezed}, the centre of the top-left one at (0, 0); anything in padding"
    )
    matches = ("pairs", "matches")

    def example(pairs: int) -> tuple[Tensor, ...]:
        query, moved = 2 * _random(2, pairs, _EXAMPLE_MATCHES, 2).sigmoid().double() - 0.5
        count = torch.arange(pairs)[:, None] + _EXAMPLE_MATCHES // 2
        present = torch.arange(_EXAMPLE_MATCHES) < count
        return query, query + moved / 4, _random(pairs, _EXAMPLE_MATCHES).sigmoid(), present

    return ExportableNetwork(
        _LogitsOfMatches(dhe_lite.load_head(model)),
        (
            TensorInfo("query", "float64", (*matches, 2), points.format("query")),
            TensorInfo("candidate", "float64", (*matches, 2), points.format("candidate")),
            TensorInfo("similarity", _FLOAT, matches, "cosine of the two matched cells"),
            TensorInfo("present", "bool", matches, "false in padding"),
        ),
        (TensorInfo("logits", _FLOAT, matches, "logit of each match being right; means nothing in padding"),),
        example,
    )


HEADS: dict[str, Callable[[ModelFile, ExtractorSpec], ExportableNetwork]] = {
    dhe.HEAD_NAME: _dhe,
    dhe_lite.HEAD_NAME: _dhe_lite,
}


class _FeaturesAsTensors(nn.Module):
    """Extractor network that returns global descriptors and local maps, without the grid."""

    def __init__(self, network: ExtractorNetwork) -> None:
        super().__init__()
        self.network = network

    def forward(
        self, images: Float[Tensor, "batch 3 height width"]
    ) -> tuple[Float[Tensor, "batch dimension"], Float[Tensor, "batch cells local_dimension"]]:
        vectors, local_maps, _ = self.network(images)
        return vectors, local_maps


class _LogitsOfMatches(nn.Module):
    """dhe-lite head without the tolerance, which only the fit uses."""

    def __init__(self, head: dhe_lite.DheLiteHead) -> None:
        super().__init__()
        self.head = head

    def forward(
        self, query: Tensor, candidate: Tensor, similarity: Tensor, present: Tensor
    ) -> tuple[Float[Tensor, "pairs matches"]]:
        tolerance = query.new_ones(query.shape[0], 2)
        return (self.head(dhe_lite.MatchBatch(query, candidate, similarity, present, tolerance)),)


def _input_meaning(preprocessing: Preprocessing) -> str:
    antialias = "with" if preprocessing.antialias else "without"
    return (
        f"RGB channels of upright images in [0, 1], each resized to exactly {preprocessing.width} x "
        f"{preprocessing.height} pixels ({preprocessing.interpolation}, {antialias} antialiasing, pixel centres at "
        f"halves, aspect ratio not kept), minus {preprocessing.mean}, divided by {preprocessing.std}"
    )


def _textures(images: int, size: Size) -> Float[Tensor, "images 3 height width"]:
    """Smooth random images with a little noise, similar to normalised photos."""
    coarse = interpolate(_random(images, 3, 5, 7), (size.height, size.width), mode="bilinear")
    return coarse + 0.1 * _random(images, 3, size.height, size.width)


def _random(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))
