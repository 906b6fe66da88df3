"""Importer of ResNet-50 trained by MoCo, whose features RANSAC-Flow matches in its coarse stage.

Source: He et al., "Momentum Contrast for Unsupervised Visual Representation Learning", CVPR 2020; the file
resnet50_moco.pth of https://github.com/XiSHEN0220/RANSAC-Flow, from https://github.com/bl0/moco.
"""

from collections.abc import Sequence
from pathlib import Path

import torch

from vpr_dhe.errors import ModelError
from vpr_dhe.models.importers.base import (
    Shapes,
    check_shapes,
    imagenet_preprocessing,
    listed,
    read_state,
    renamed,
    shapes_of,
    without_counters,
)
from vpr_dhe.models.importers.torchvision_keys import resnet_shapes
from vpr_dhe.models.model_file import Architecture, ModelFile
from vpr_dhe.records import Size

MAX_FILES = 1
_QUERY_ENCODER = "encoder_q."
_EMBEDDING = 128
_STAGES, _CUT = 4, 3
# The shorter side in the published evaluation.
_INPUT_SIZE = Size(480, 480)
# Exponent of GeM, which checkpoints do not contain: the coarse stage uses only local maps.
_EXPONENT = 3.0


def recognises(shapes: Shapes) -> bool:
    """Whether tensors are those of the ResNet of MoCo, alone or as its query encoder."""
    if f"{_QUERY_ENCODER}conv1.weight" in shapes:
        return True
    return {"conv1.weight", "layer4.0.conv1.weight"} <= shapes.keys() and shapes.get("fc.weight", (0,))[0] == _EMBEDDING


def convert(paths: Sequence[Path]) -> ModelFile:
    """Convert a checkpoint; the network is cut after `layer3`, whose cells of 16 pixels are the local map.

    Raises:
        ModelError: if the file cannot be read or holds something else.
    """
    (path,) = paths
    state = without_counters(read_state(path))
    if not recognises(shapes_of(state)):
        raise ModelError(
            f"{path} holds {listed(list(state))}, not a ResNet-50 of MoCo (conv1.weight..., fc.weight of {_EMBEDDING} "
            "rows); give a file such as resnet50_moco.pth"
        )
    prefix = _QUERY_ENCODER if f"{_QUERY_ENCODER}conv1.weight" in state else ""
    network = {key: value for key, value in renamed(state, prefix, "").items() if not key.startswith("fc.")}
    # The key encoder and the queue of a full checkpoint are used in training only.
    check_shapes(network, resnet_shapes("resnet50", _STAGES), str(path))
    kept = resnet_shapes("resnet50", _CUT)
    return ModelFile(
        name="moco-resnet50",
        architecture=Architecture("torchvision:resnet50", "gem", blocks=_CUT),
        preprocessing=imagenet_preprocessing(_INPUT_SIZE, "bilinear", antialias=True),
        licence="none given: XiSHEN0220/RANSAC-Flow hands the weights on from bl0/moco; do not pass them on",
        training_data="ImageNet-1k without labels",
        tensors={f"backbone.{key}": network[key] for key in kept} | {"aggregator.p": torch.tensor([_EXPONENT])},
        published=True,
    )
