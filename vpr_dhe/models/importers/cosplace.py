"""Importer of the checkpoints published with CosPlace.

Source: https://github.com/gmberton/CosPlace (Berton et al., "Rethinking Visual Geo-localization for Large-Scale
Applications", CVPR 2022).
"""

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from vpr_dhe.errors import ModelError
from vpr_dhe.models.importers.base import (
    Shapes,
    State,
    affine,
    check_shapes,
    imagenet_preprocessing,
    listed,
    read_state,
    shapes_of,
    without_counters,
)
from vpr_dhe.models.importers.torchvision_keys import (
    SEQUENTIAL,
    resnet_of,
    resnet_shapes,
    vgg16_shapes,
)
from vpr_dhe.models.model_file import Architecture, ModelFile
from vpr_dhe.records import Size

MAX_FILES = 1
_SIDE_PX = 512
_POOL, _LINEAR = "aggregation.1.p", "aggregation.3.weight"
# Inliers are within 48 px, as in the DHE paper.
_TOLERANCE_PX = 48
_VGG_STRIDE_PX, _RESNET_STRIDE_PX = 16, 32


def recognises(shapes: Shapes) -> bool:
    """Whether tensors are those of CosPlace or EigenPlaces, which have the same names."""
    return _POOL in shapes and _LINEAR in shapes and "backbone.0.weight" in shapes


def convert(paths: Sequence[Path]) -> ModelFile:
    """Convert one checkpoint; see `import_gem_linear`."""
    return import_gem_linear(
        *paths,
        family="cosplace",
        licence="MIT (gmberton/CosPlace, the repository that publishes the weights)",
        training_data="SF-XL, on ImageNet-1k weights",
    )


def import_gem_linear(path: Path, *, family: str, licence: str, training_data: str) -> ModelFile:
    """Convert a checkpoint of CosPlace or EigenPlaces: a ResNet or VGG-16, GeM and a linear layer.

    Backbone and dimension follow from the shapes. Images keep their size, as in the published evaluation, unless their
    short side is longer than 512 pixels.

    Raises:
        ModelError: if the file cannot be read or holds something else.
    """
    state = without_counters(read_state(path))
    if not recognises(shapes_of(state)):
        raise ModelError(
            f"{path} holds {listed(list(state))}, not a checkpoint of {family} (backbone.0.weight..., {_POOL}, "
            f"{_LINEAR}); give the file published with it"
        )
    tensors = _translated(state)
    network = _network_of(tensors, path)
    dimension = state[_LINEAR].shape[0]
    check_shapes(tensors, _expected_shapes(network, dimension), str(path))
    preprocessing = imagenet_preprocessing(Size(_SIDE_PX, _SIDE_PX), "bilinear", antialias=True)
    stride = _VGG_STRIDE_PX if network == "vgg16" else _RESNET_STRIDE_PX
    return ModelFile(
        name=f"{family}-{network}-{dimension}",
        architecture=Architecture(f"torchvision:{network}", "gem-linear", tolerance_cells=_TOLERANCE_PX / stride),
        preprocessing=replace(preprocessing, resize_mode="short_side"),
        licence=licence,
        training_data=training_data,
        tensors=tensors,
        published=True,
    )


def _translated(state: State) -> State:
    """Tensors by the names of a model file."""
    is_vgg = "backbone.28.weight" in state
    translated = {}
    for key, value in state.items():
        name = re.sub(r"^aggregation\.1\.p$", "aggregator.pool.p", key)
        name = re.sub(r"^aggregation\.3\.", "aggregator.linear.", name)
        if is_vgg:
            name = re.sub(r"^backbone\.", "backbone.features.", name)
        else:
            name = re.sub(r"^backbone\.(\d)\.", lambda found: f"backbone.{SEQUENTIAL.get(found[1], found[1])}.", name)
        translated[name] = value
    return translated


def _network_of(tensors: State, path: Path) -> str:
    if "backbone.features.28.weight" in tensors:
        return "vgg16"
    name = resnet_of(shapes_of(tensors), "backbone.")
    if name is None:
        raise ModelError(
            f"{path} has a backbone that is neither VGG-16 nor a ResNet of 18 to 152 layers; give a file that the "
            "authors publish"
        )
    return name


def _expected_shapes(network: str, dimension: int) -> Shapes:
    if network == "vgg16":
        backbone, width = {f"features.{key}": shape for key, shape in vgg16_shapes().items()}, 512
    else:
        backbone = resnet_shapes(network, 4)
        width = 512 if network in ("resnet18", "resnet34") else 2048
    aggregator: Shapes = {"aggregator.pool.p": (1,), **affine("aggregator.linear", dimension, width)}
    return {f"backbone.{key}": shape for key, shape in backbone.items()} | aggregator
