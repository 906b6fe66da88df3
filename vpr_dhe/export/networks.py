"""Exportable networks of heads, with tensors as inputs and outputs, and example inputs."""

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import normalize

from vpr_dhe.errors import ModelError
from vpr_dhe.features.base import ExtractorSpec
from vpr_dhe.models.exported_model import TensorInfo
from vpr_dhe.models.model_file import ModelFile
from vpr_dhe.models.onnx_conversion import ExportableNetwork, random_values
from vpr_dhe.verification.estimators import dhe, dhe_lite

_FLOAT = "float32"
_EXAMPLE_MATCHES = 50


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
        query, noise = random_values(1, cells, width), random_values(pairs, cells, width)
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
        query, moved = 2 * random_values(2, pairs, _EXAMPLE_MATCHES, 2).sigmoid().double() - 0.5
        count = torch.arange(pairs)[:, None] + _EXAMPLE_MATCHES // 2
        present = torch.arange(_EXAMPLE_MATCHES) < count
        return query, query + moved / 4, random_values(pairs, _EXAMPLE_MATCHES).sigmoid(), present

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
