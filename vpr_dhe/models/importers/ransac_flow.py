"""Importer of the fine networks published with RANSAC-Flow.

Source: https://github.com/XiSHEN0220/RANSAC-Flow (Shen et al., "RANSAC-Flow: generic two-stage image alignment", ECCV
2020).
"""

import re
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

from vpr_dhe.errors import ModelError
from vpr_dhe.models.importers.base import (
    Shapes,
    State,
    batch_norm,
    check_shapes,
    listed,
    read_state,
    shapes_of,
    without_counters,
)
from vpr_dhe.models.network_file import NetworkFile

MAX_FILES = 1
_FEATURES, _FLOW, _MATCHABILITY = "netFeatCoarse", "netFlowCoarse", "netMatch"
_STAGES = {"layer1": ("at_half", 64), "layer2": ("at_quarter", 128), "layer3": ("at_eighth", 256)}
_HEAD_WIDTHS = (49, 512, 256, 128)
# `PUBLISHED` of the network, which this stage must not import.
_SETTINGS = {
    "half": 64,
    "quarter": 128,
    "eighth": 256,
    "first": 512,
    "second": 256,
    "third": 128,
    "blurred_residual": False,
    "blur_padding": "reflect",
    "head_bias": False,
    "imagenet_input": False,
    "aligned_corners": True,
}


def recognises(shapes: Shapes) -> bool:
    """Whether tensors are those of the three fine networks."""
    return {f"{_FEATURES}.conv1.weight", f"{_FLOW}.conv4.weight", f"{_MATCHABILITY}.conv4.weight"} <= shapes.keys()


def convert(paths: Sequence[Path]) -> NetworkFile:
    """Convert a file of netFeatCoarse (the features of the fine stage), netCorr, netFlowCoarse and netMatch.

    Raises:
        ModelError: if the file cannot be read or holds something else.
    """
    (path,) = paths
    state = without_counters(read_state(path))
    if not recognises(shapes_of(state)):
        raise ModelError(
            f"{path} holds {listed(list(state))}, not the networks of RANSAC-Flow ({_FEATURES}, {_FLOW}, "
            f"{_MATCHABILITY}); give a file such as MegaDepth_Theta1_Eta001_Grad0_0.807.pth"
        )
    check_shapes(state, _expected_shapes(), str(path))
    # The filters of the blur are constants in both.
    tensors = {_renamed(key): value for key, value in state.items() if not key.endswith(".filt")}
    return NetworkFile(
        method="ransac-flow",
        settings=_SETTINGS,
        licence="MIT (XiSHEN0220/RANSAC-Flow, the repository that publishes the weights)",
        training_data="MegaDepth, or the data that the name of the file says",
        tensors=_with_counters(tensors),
    )


def _with_counters(tensors: State) -> State:
    """Add the batch counters of batch norms, which inference does not use."""
    import torch

    counters = {
        re.sub("running_mean$", "num_batches_tracked", key): torch.tensor(0)
        for key in tensors
        if key.endswith("running_mean")
    }
    return tensors | counters


def _renamed(key: str) -> str:
    """Name of a tensor in a network file."""
    network, rest = key.split(".", 1)
    if network != _FEATURES:
        # conv1, bn1 are the first and second module of the first layer; a ReLU follows each of the three layers.
        head = "flow_head" if network == _FLOW else "matchability_head"
        kind, number, name = re.fullmatch(r"(conv|bn)(\d)\.(\w+)", rest).groups()  # pyright: ignore[reportOptionalMemberAccess]
        return f"{head}.6.{name}" if number == "4" else f"{head}.{2 * (int(number) - 1)}.{int(kind == 'bn')}.{name}"
    if rest.startswith(("conv1.", "bn1.")):
        return rest.replace("conv1.", "features.stem.0.0.").replace("bn1.", "features.stem.0.1.")
    layer, block, rest = rest.split(".", 2)
    # Convolution and norm, a ReLU, convolution and norm; the shortcut is a blur, a convolution and a norm.
    for published, ours in (
        ("conv1.", "residual.0.0."),
        ("bn1.", "residual.0.1."),
        ("conv2.", "residual.2.0."),
        ("bn2.", "residual.2.1."),
        ("downsample.1.", "shortcut.1.0."),
        ("downsample.2.", "shortcut.1.1."),
    ):
        if rest.startswith(published):
            return f"features.{_STAGES[layer][0]}.{block}.{ours}{rest.removeprefix(published)}"
    raise AssertionError(key)  # its shape was checked


def _expected_shapes() -> Shapes:
    shapes: Shapes = {f"{_FEATURES}.conv1.weight": (64, 3, 3, 3), **batch_norm(f"{_FEATURES}.bn1", 64)}
    shapes[f"{_FEATURES}.maxpool.1.filt"] = (64, 1, 3, 3)
    inputs = 64
    for layer, (_, width) in _STAGES.items():
        for block in range(2):
            name = f"{_FEATURES}.{layer}.{block}"
            shapes |= {f"{name}.conv1.weight": (width, inputs, 3, 3), f"{name}.conv2.weight": (width, width, 3, 3)}
            shapes |= {**batch_norm(f"{name}.bn1", width), **batch_norm(f"{name}.bn2", width)}
            if inputs != width:
                shapes[f"{name}.downsample.0.filt"] = (inputs, 1, 3, 3)
                shapes |= {
                    f"{name}.downsample.1.weight": (width, inputs, 1, 1),
                    **batch_norm(f"{name}.downsample.2", width),
                }
            inputs = width
    return shapes | _head_shapes(_FLOW, 49) | _head_shapes(_MATCHABILITY, 1)


def _head_shapes(name: str, outputs: int) -> Shapes:
    shapes: Shapes = {f"{name}.conv4.weight": (outputs, _HEAD_WIDTHS[-1], 3, 3)}
    for number, (inputs, width) in enumerate(pairwise(_HEAD_WIDTHS), 1):
        shapes |= {f"{name}.conv{number}.weight": (width, inputs, 3, 3), **batch_norm(f"{name}.bn{number}", width)}
    return shapes
