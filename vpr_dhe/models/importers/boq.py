"""Importer of BoQ.

Source: https://github.com/amaralibey/Bag-of-Queries (Ali-bey et al., "BoQ: A place is worth a bag of learnable
queries", CVPR 2024).
"""

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import NamedTuple, TypeAlias

from vpr_dhe.errors import ModelError
from vpr_dhe.models.importers import dinov2
from vpr_dhe.models.importers.base import (
    Shapes,
    State,
    affine,
    check_shapes,
    imagenet_preprocessing,
    read_state,
    renamed,
    rows_of,
)
from vpr_dhe.models.importers.dinov2 import PublishedDinoV2
from vpr_dhe.models.importers.torchvision_keys import from_sequential, sequential_shapes
from vpr_dhe.models.model_file import Architecture, ModelFile
from vpr_dhe.records import Size

MAX_FILES = 1
_AGGREGATOR = "aggregator."
_LICENCE = "MIT (amaralibey/Bag-of-Queries, the repository that publishes the weights)"


class PublishedBackbone(NamedTuple):
    """Backbone of a checkpoint of BoQ.

    Args:
        model: name of the model.
        name: name of the backbone.
        channels: width of its tokens.
        shapes: shapes of its tensors in the checkpoint.
        tensors: its tensors, with the names of a model file.
        weights: pretrained weights that training started from.
        input_size: input size of the model.
        blocks: number of blocks, or stages, to keep; None keeps all.
    """

    model: str
    name: str
    channels: int
    shapes: Shapes
    tensors: State
    weights: str
    input_size: Size
    blocks: int | None = None


def recognises(shapes: Shapes) -> bool:
    """Whether these are the tensors of BoQ on a known backbone."""
    return "aggregator.boqs.0.queries" in shapes and _reader(shapes) is not None


def convert(paths: Sequence[Path]) -> ModelFile:
    """Convert one checkpoint; the sizes of the aggregator are inferred from the shapes.

    Raises:
        ModelError: if the file cannot be read or holds something else.
    """
    (path,) = paths
    state = read_state(path)
    backbone = (_reader(state) or _on_dinov2)(state, path)
    check_shapes(state, backbone.shapes | _aggregator_shapes(state, backbone.channels, path), str(path))
    return ModelFile(
        name=backbone.model,
        architecture=Architecture(backbone.name, "boq", blocks=backbone.blocks),
        preprocessing=imagenet_preprocessing(backbone.input_size, "bicubic", antialias=True),
        licence=_LICENCE,
        training_data=f"GSV-Cities, on {backbone.weights} weights",
        tensors=backbone.tensors | renamed(state, _AGGREGATOR, _AGGREGATOR),
        published=True,
    )


def _on_dinov2(state: State, path: Path) -> PublishedBackbone:
    published = PublishedDinoV2.find(state, _DINOV2, path)
    return PublishedBackbone(
        model="boq-dinov2",
        name=f"dinov2-unnormed:{published.name}",
        channels=published.width,
        shapes=published.shapes(state),
        tensors=published.tensors(state, normed=False),  # the final norm is in the file, but not used
        weights="DINOv2",
        input_size=dinov2.INPUT_SIZE,
    )


def _on_resnet50(state: State, _: Path) -> PublishedBackbone:
    return PublishedBackbone(
        model="boq-resnet50",
        name="torchvision:resnet50",
        channels=1024,
        shapes=sequential_shapes("resnet50", _STAGES, _RESNET),
        tensors=from_sequential(state, _RESNET),
        weights="ImageNet-1k",
        input_size=Size(384, 384),
        blocks=_STAGES,
    )


def _reader(names: Iterable[str]) -> "_Reader | None":
    """Find the reader of the backbone whose tensors have these names."""
    return next((read for name in names for start, read in _BACKBONES.items() if name.startswith(start)), None)


_Reader: TypeAlias = Callable[[State, Path], PublishedBackbone]
_DINOV2, _RESNET = "backbone.dino.", "backbone.net."
_STAGES = 3
# By prefix of the names of their tensors.
_BACKBONES: dict[str, _Reader] = {_DINOV2: _on_dinov2, _RESNET: _on_resnet50}


def _aggregator_shapes(state: State, channels: int, path: Path) -> Shapes:
    """Expected shapes of the aggregator on a backbone with `channels` channels, with sizes inferred from the state.

    Raises:
        ModelError: if there are no queries.
    """
    queries = state.get("aggregator.boqs.0.queries")
    if queries is None or queries.ndim != 3:
        raise ModelError(f"{path} holds no BoQ: expected aggregator.boqs.0.queries; give the file that is published")
    _, count, width = queries.shape
    blocks = sum(key.endswith(".queries") for key in state)
    shapes: Shapes = {
        **affine("proj_c", width, channels, 3, 3),
        **affine("norm_input", width),
        **affine("fc", rows_of(state, "aggregator.fc.weight"), blocks * count),
    }
    for block in (f"boqs.{index}" for index in range(blocks)):
        shapes |= {f"{block}.queries": (1, count, width)}
        for attention in ("encoder.self_attn", "self_attn", "cross_attn"):
            shapes |= attention_shapes(f"{block}.{attention}", width)
        for norm in ("encoder.norm1", "encoder.norm2", "norm_q", "norm_out"):
            shapes |= affine(f"{block}.{norm}", width)
        shapes |= affine(f"{block}.encoder.linear1", 4 * width, width)
        shapes |= affine(f"{block}.encoder.linear2", width, 4 * width)
    return {f"{_AGGREGATOR}{key}": shape for key, shape in shapes.items()}


def attention_shapes(name: str, width: int) -> Shapes:
    """Shapes of torch's `MultiheadAttention`."""
    return {
        f"{name}.in_proj_weight": (3 * width, width),
        f"{name}.in_proj_bias": (3 * width,),
        **affine(f"{name}.out_proj", width, width),
    }
