"""Importer of checkpoints of Compact Convolutional Transformers.

Source: https://github.com/SHI-Labs/Compact-Transformers (Hassani et al., "Escaping the Big Data Paradigm with Compact
Transformers", 2021).
"""

import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import torch

from vpr_dhe.errors import ModelError
from vpr_dhe.models.importers.base import Shapes, State, affine, check_shapes, imagenet_preprocessing, read_state
from vpr_dhe.models.model_file import Architecture, ModelFile
from vpr_dhe.models.positional_embedding import resize_positional_embedding
from vpr_dhe.records import Grid, Size

MAX_FILES = 1
STEM_WEIGHT = "tokenizer.conv_layers.0.0.weight"
"""Name of a tensor that every CCT has."""
_STRIDE_PX = 16


class Variant(NamedTuple):
    """Number of blocks, width of the feed-forward layers, and names of backbones by input side in pixels."""

    blocks: int
    feed_forward: int
    names: dict[int, str]


VARIANTS = {
    256: Variant(7, 512, {224: "cct_7_7x2_224"}),
    384: Variant(14, 1152, {224: "cct_14_7x2_224", 384: "cct_14_7x2_384"}),
}
"""Variants by dimension (Hassani et al. 2021)."""


def convert(paths: Sequence[Path]) -> ModelFile:
    """Convert one checkpoint; see `import_cct`."""
    return import_cct(*paths)


def recognises(shapes: Shapes) -> bool:
    """Whether these are the tensors of a CCT of the Compact Transformers repository."""
    return {STEM_WEIGHT, "classifier.positional_emb"} <= shapes.keys()


def import_cct(
    path: Path,
    *,
    input_size: Size | None = None,
    name: str | None = None,
    training_data: str = "ImageNet-1k, or what the checkpoint was finetuned on",
) -> ModelFile:
    """Convert a checkpoint of the Compact Transformers repository (CCT-7/7x2 or CCT-14/7x2) to a descriptor model.

    The variant and its input size follow from the shapes. The global descriptor is GeM of unit-norm cells with p = 3,
    the starting point of DHE-VPR's training. With `input_size` the positional embedding is resized.

    Raises:
        ModelError: if the file cannot be read or holds something else, or `input_size` is not a multiple of 16 pixels.

    Source: https://github.com/SHI-Labs/Compact-Transformers (Hassani et al. 2021).
    """
    state = {f"backbone.{key}": value for key, value in without_classifier(read_state(path)).items()}
    dimension, trained_size = _dimension_and_size(state, path)
    variant, blocks = VARIANTS[dimension], block_count(state)
    check_shapes(state, cct_shapes(dimension, blocks, trained_size), str(path))
    size = input_size or trained_size
    key = "backbone.classifier.positional_emb"
    resized = resize_positional_embedding(state[key], _grid(trained_size), _grid(size))
    backbone = variant.names.get(trained_size.width, next(reversed(variant.names.values())))
    return ModelFile(
        name=name or backbone,
        architecture=Architecture(backbone, "gem-unit-cells", blocks=None if blocks == variant.blocks else blocks),
        preprocessing=imagenet_preprocessing(size, "bicubic", antialias=True),
        licence="Apache-2.0 (SHI-Labs/Compact-Transformers, the repository that publishes the weights)",
        training_data=training_data,
        tensors={**state, key: resized.contiguous(), "aggregator.p": torch.full((1,), 3.0)},
        published=True,
    )


def cct_shapes(dimension: int, blocks: int, input_size: Size) -> Shapes:
    """Shapes of a backbone of a dimension that is cut after `blocks` blocks, or as many as its variant has."""
    variant, grid = VARIANTS[dimension], _grid(input_size)
    shapes: Shapes = {
        STEM_WEIGHT: (64, 3, 7, 7),
        "tokenizer.conv_layers.1.0.weight": (dimension, 64, 7, 7),
        "classifier.positional_emb": (1, grid.rows * grid.columns, dimension),
        **affine("classifier.norm", dimension),
    }
    for index in range(min(blocks, variant.blocks)):
        block = f"classifier.blocks.{index}"
        shapes |= {
            **affine(f"{block}.pre_norm", dimension),
            f"{block}.self_attn.qkv.weight": (3 * dimension, dimension),
            **affine(f"{block}.self_attn.proj", dimension, dimension),
            **affine(f"{block}.linear1", variant.feed_forward, dimension),
            **affine(f"{block}.norm1", dimension),
            **affine(f"{block}.linear2", dimension, variant.feed_forward),
        }
    return {f"backbone.{key}": shape for key, shape in shapes.items()}


def without_classifier(state: State) -> State:
    """Drop sequence pooling and classification, which dense features do not use."""
    return {key: value for key, value in state.items() if not re.search(r"classifier\.(attention_pool|fc)\.", key)}


def block_count(state: State) -> int:
    """Number of transformer blocks in a state whose backbone has the prefix `backbone.`."""
    numbers = [re.search(r"^backbone\.classifier\.blocks\.(\d+)\.", key) for key in state]
    return max((int(number[1]) + 1 for number in numbers if number), default=1)


def _grid(size: Size) -> Grid:
    if any(side < _STRIDE_PX or side % _STRIDE_PX for side in size):
        raise ModelError(f"CCT needs input sides that are multiples of {_STRIDE_PX} pixels, not {tuple(size)}")
    return Grid(size.height // _STRIDE_PX, size.width // _STRIDE_PX)


def _dimension_and_size(state: State, path: Path) -> tuple[int, Size]:
    """Dimension and input size, from the shape of the positional embedding."""
    shape = tuple(state.get("backbone.classifier.positional_emb", torch.empty(0)).shape)
    side = math.isqrt(shape[1]) if len(shape) == 3 else 0
    if len(shape) != 3 or shape[2] not in VARIANTS or side * side != shape[1] or f"backbone.{STEM_WEIGHT}" not in state:
        raise ModelError(
            f"{path} is not a CCT-7/7x2 or CCT-14/7x2 checkpoint: expected classifier.positional_emb of shape "
            f"(1, side * side, 256 or 384), found {shape or 'none'}; give a 7x2 checkpoint of Compact-Transformers"
        )
    return shape[2], Size(side * _STRIDE_PX, side * _STRIDE_PX)
