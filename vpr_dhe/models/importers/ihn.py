"""Importer of the registration networks published with IHN, of one scale or two.

Source: https://github.com/imdumpl78/IHN (Cao et al., "Iterative Deep Homography Estimation", CVPR 2022).
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from vpr_dhe.errors import ModelError
from vpr_dhe.models.importers.base import Shapes, affine, check_shapes, listed, read_state, shapes_of
from vpr_dhe.models.network_file import NetworkFile

MAX_FILES = 1
_ENCODER, _COARSE, _FINE = "fnet1.", "update_block_4.", "update_block_2."
_VALUES = 164
_COARSE_WIDTH, _FINE_WIDTH = 128, 80
_COARSE_LAYERS, _FINE_LAYERS = 4, 5
# `LAYOUTS["ihn"]` of the network, which this stage must not import.
_SETTINGS = {
    "network": "iterative",
    "side_px": 128,
    "width": 64,
    "iterations": 6,
    "projected_shortcuts": True,
    "relu_in_residual": True,
    "both_projections": True,
    "scaled_correlation": False,
    "x_slow_window": True,
    "halved_centres": True,
    "homography_of_cells": True,
    "update": "wide",
    "fine_width": _FINE_WIDTH,
    "fine_iterations": 3,
    "warped_scale": True,
}


def recognises(shapes: Shapes) -> bool:
    """Whether tensors are those of an encoder and an update of IHN."""
    return f"{_ENCODER}conv1.weight" in shapes and any(key.startswith((_COARSE, _FINE)) for key in shapes)


def convert(paths: Sequence[Path]) -> NetworkFile:
    """Convert an `IHN.pth`.

    Raises:
        ModelError: if the file cannot be read or holds something else, such as the weighted update of `moveobj_weight`.
    """
    (path,) = paths
    state = read_state(path)
    if not recognises(shapes_of(state)):
        raise ModelError(
            f"{path} holds {listed(list(state))}, not a network of IHN ({_ENCODER}..., {_COARSE}...); give an IHN.pth "
            "of its folder results"
        )
    if weighted := [key for key in state if ".cnn_weight." in key]:
        raise ModelError(
            f"{path} holds an update that weighs image regions ({listed(weighted)}), which is not supported; give a "
            "file of another folder than moveobj_weight"
        )
    scales = 2 if any(key.startswith(_FINE) for key in state) else 1
    names = dict(_names(scales))
    check_shapes(state, _expected_shapes(scales), str(path))
    return NetworkFile(
        method="iterative",
        settings={**_SETTINGS, "scales": scales},
        licence="Apache-2.0 (imdumpl78/IHN, the repository that publishes the weights)",
        training_data="MS-COCO, Google Earth, Google Maps or moving objects, as the folder of the file says",
        tensors={_renamed(key, names): value for key, value in state.items()},
    )


def _renamed(key: str, names: Mapping[str, str]) -> str:
    layer, _, part = key.rpartition(".")
    return f"{names[layer]}.{part}"


def _names(scales: int) -> Iterator[tuple[str, str]]:
    """Yield the published and the new name of each layer."""
    yield f"{_ENCODER}conv1", "encoder.stem.0"
    for published, stage in (("layer2", "to_half"), ("layer3", "to_quarter")):
        for block in range(2):
            for part, ours in (("conv1", "first"), ("conv2", "second"), ("downsample.0", "beside")):
                yield f"{_ENCODER}{published}.{block}.{part}", f"encoder.{stage}.{block + 1}.{ours}"
    yield f"{_ENCODER}conv2", "encoder.describe_coarse"
    yield f"{_ENCODER}conv3", "encoder.describe_fine"
    updates = ((_COARSE, _COARSE_LAYERS), (_FINE, _FINE_LAYERS))
    for scale, (update, layers) in enumerate(updates[:scales]):
        # Each layer is a convolution, a norm, a ReLU and a pooling; the last two convolutions have no pooling.
        for layer in range(layers):
            for part in (0, 1):
                yield f"{update}cnn.layer{layer + 1}.{part}", f"updates.{scale}.layers.{4 * layer + part}"
        for part in (0, 1, 3):
            yield f"{update}cnn.layer10.{part}", f"updates.{scale}.layers.{4 * layers + part}"


def _expected_shapes(scales: int) -> Shapes:
    shapes = affine(f"{_ENCODER}conv1", 64, 3, 7, 7)
    inputs = 64
    for layer, width in (("layer2", 64), ("layer3", 96)):
        for block in range(2):
            name = f"{_ENCODER}{layer}.{block}"
            shapes |= affine(f"{name}.conv1", width, inputs, 3, 3) | affine(f"{name}.conv2", width, width, 3, 3)
            shapes |= affine(f"{name}.downsample.0", width, inputs, 1, 1)
            inputs = width
    shapes |= affine(f"{_ENCODER}conv2", 256, 96, 1, 1) | affine(f"{_ENCODER}conv3", 256, 64, 1, 1)
    shapes |= _update_shapes(_COARSE, _COARSE_WIDTH, _COARSE_LAYERS)
    return shapes | (_update_shapes(_FINE, _FINE_WIDTH, _FINE_LAYERS) if scales > 1 else {})


def _update_shapes(update: str, width: int, layers: int) -> Shapes:
    shapes: Shapes = {}
    for number in (*range(1, layers + 1), 10):
        inputs = _VALUES if number == 1 else width
        name = f"{update}cnn.layer{number}"
        shapes |= affine(f"{name}.0", width, inputs, 3, 3) | affine(f"{name}.1", width)
    return shapes | affine(f"{update}cnn.layer10.3", 2, width, 1, 1)
