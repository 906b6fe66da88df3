"""Importer of DINOv2-SALAD, of 8448, 2112 or 544 dimensions.

Source: https://github.com/serizba/salad (Izquierdo and Civera, "Optimal transport aggregation for visual place
recognition", CVPR 2024).
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from vpr_dhe.models.importers import dinov2
from vpr_dhe.models.importers.base import (
    Shapes,
    State,
    affine,
    check_shapes,
    read_state,
    renamed,
    rows_of,
)
from vpr_dhe.models.importers.dinov2 import PublishedDinoV2
from vpr_dhe.models.model_file import Architecture, ModelFile
from vpr_dhe.records import RESIZE_8_BIT

MAX_FILES = 1
WRAPPER = None  # CliqueMining, which has the same tensors, is published as a checkpoint of Lightning
_BACKBONE, _AGGREGATOR = "backbone.model.", "aggregator."
# Name, number of the second layer, and whether layers are convolutions with dropout between them.
_LAYERS = (("token_features", 2, False), ("cluster_features", 3, True), ("score", 3, True))
# Evaluated by its authors in float16; files are read in float32.
_PREPROCESSING = replace(dinov2.preprocessing(antialias=True), order=RESIZE_8_BIT)


def recognises(shapes: Shapes) -> bool:
    """Whether these are the tensors of DINOv2-SALAD, or of CliqueMining, which has the same."""
    return {f"{_BACKBONE}cls_token", f"{_AGGREGATOR}dust_bin"} <= shapes.keys()


def convert(paths: Sequence[Path]) -> ModelFile:
    """Convert one checkpoint; the sizes of the aggregator are inferred from the shapes.

    Raises:
        ModelError: if the file cannot be read or holds something else.
    """
    return import_salad(
        paths[0],
        name="dinov2-salad",
        licence="GPL-3.0 (serizba/salad, the repository that publishes the weights)",
        training_data="GSV-Cities, on DINOv2 weights",
    )


def import_salad(path: Path, *, name: str, licence: str, training_data: str) -> ModelFile:
    """Convert a checkpoint of DINOv2-SALAD or of a model with the same tensors.

    Raises:
        ModelError: if the file cannot be read or holds something else.
    """
    state = read_state(path)
    published = PublishedDinoV2.find(state, _BACKBONE, path)
    aggregator = {**transport_shapes(state, _AGGREGATOR, published.width), f"{_AGGREGATOR}dust_bin": ()}
    check_shapes(state, published.shapes(state) | aggregator, str(path))
    return ModelFile(
        name=name,
        architecture=Architecture(f"dinov2:{published.name}", "salad"),
        preprocessing=_PREPROCESSING,
        licence=licence,
        training_data=training_data,
        tensors=published.tensors(state) | transport_tensors(state, _AGGREGATOR),
        published=True,
    )


def transport_shapes(state: State, prefix: str, width: int) -> Shapes:
    """Expected shapes of the layers of SALAD, with sizes inferred from the state."""
    shapes: Shapes = {}
    for layers, second, is_convolution in _LAYERS:
        names, side = (f"{prefix}{layers}.0", f"{prefix}{layers}.{second}"), (1, 1) * is_convolution
        hidden, out = (rows_of(state, f"{name}.weight") for name in names)
        shapes |= affine(names[0], hidden, width, *side) | affine(names[1], out, hidden, *side)
    return shapes


def transport_tensors(state: State, prefix: str) -> State:
    """Tensors of an aggregator of SALAD; 1 x 1 convolutions become linear layers."""
    tensors = renamed(state, prefix, "aggregator.")
    for layers, second, _ in _LAYERS:
        for part in ("weight", "bias"):
            tensors[f"aggregator.{layers}.2.{part}"] = tensors.pop(f"aggregator.{layers}.{second}.{part}")
        for index in (0, 2):
            name = f"aggregator.{layers}.{index}.weight"
            tensors[name] = tensors[name].flatten(1)
    return tensors
