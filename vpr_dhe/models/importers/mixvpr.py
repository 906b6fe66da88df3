"""Importer of the checkpoints published with MixVPR.

Source: https://github.com/amaralibey/MixVPR (Ali-bey et al., "MixVPR: Feature Mixing for Visual Place Recognition",
WACV 2023).
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

from vpr_dhe.errors import ModelError
from vpr_dhe.models.importers.base import (
    Shapes,
    affine,
    check_shapes,
    imagenet_preprocessing,
    listed,
    read_state,
    shapes_of,
    without_counters,
)
from vpr_dhe.models.importers.torchvision_keys import resnet_shapes
from vpr_dhe.models.model_file import Architecture, ModelFile
from vpr_dhe.records import RESIZE_8_BIT, Size

MAX_FILES = 1
_INPUT_SIZE = Size(320, 320)
_CELLS, _WIDTH = 400, 1024
_STAGES = 3


def recognises(shapes: Shapes) -> bool:
    """Whether tensors are those of MixVPR."""
    return "aggregator.row_proj.weight" in shapes and "backbone.model.conv1.weight" in shapes


def convert(paths: Sequence[Path]) -> ModelFile:
    """Convert one checkpoint; see `import_mixvpr`."""
    return import_mixvpr(*paths)


def import_mixvpr(path: Path) -> ModelFile:
    """Convert a checkpoint of MixVPR (ResNet-50 up to layer3); its dimension follows from the shapes.

    Images are resized as in the published validation, with Pillow's bilinear interpolation.

    Raises:
        ModelError: if the file cannot be read or holds something else.
    """
    state = without_counters(read_state(path))
    if not recognises(shapes_of(state)):
        raise ModelError(
            f"{path} holds {listed(list(state))}, not a checkpoint of MixVPR (backbone.model.conv1.weight..., "
            "aggregator.row_proj.weight); give a file published with it for ResNet-50"
        )
    tensors = {re.sub(r"^backbone\.model\.", "backbone.", key): value for key, value in state.items()}
    channels, rows = (state[f"aggregator.{part}_proj.weight"].shape[0] for part in ("channel", "row"))
    check_shapes(tensors, _expected_shapes(tensors.keys(), channels, rows), str(path))
    preprocessing = imagenet_preprocessing(_INPUT_SIZE, "bilinear", antialias=True)
    return ModelFile(
        name=f"mixvpr-{channels * rows}",
        architecture=Architecture("torchvision:resnet50", "mixvpr", blocks=_STAGES),
        preprocessing=replace(preprocessing, order=RESIZE_8_BIT),
        licence="none given: amaralibey/MixVPR publishes the weights without a licence; do not pass them on",
        training_data="GSV-Cities, on ImageNet-1k weights",
        tensors=tensors,
        published=True,
    )


def _expected_shapes(keys: Iterable[str], channels: int, rows: int) -> Shapes:
    numbers = [int(found[1]) for key in keys if (found := re.match(r"aggregator\.mix\.(\d+)\.", key))]
    aggregator: Shapes = {**affine("channel_proj", channels, _WIDTH), **affine("row_proj", rows, _CELLS)}
    for index in range(max(numbers, default=-1) + 1):
        layer = f"mix.{index}.mix"
        aggregator |= affine(f"{layer}.0", _CELLS) | affine(f"{layer}.1", _CELLS, _CELLS)
        aggregator |= affine(f"{layer}.3", _CELLS, _CELLS)
    parts = {"backbone": resnet_shapes("resnet50", _STAGES), "aggregator": aggregator}
    return {f"{part}.{key}": shape for part, shapes in parts.items() for key, shape in shapes.items()}
