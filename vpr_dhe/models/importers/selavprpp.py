"""Importer of SelaVPR++, with or without binary codes.

Source: https://github.com/Lu-Feng/SelaVPRplusplus (Lu et al., "SelaVPR++: Towards seamless adaptation of foundation
models for efficient place recognition", TPAMI 2025).
"""

from collections.abc import Sequence
from pathlib import Path

from vpr_dhe.errors import ModelError
from vpr_dhe.models.importers import dinov2
from vpr_dhe.models.importers.base import (
    Shapes,
    State,
    affine,
    check_shapes,
    read_state,
    renamed,
    rows_of,
    without_counters,
)
from vpr_dhe.models.importers.dinov2 import PublishedDinoV2
from vpr_dhe.models.model_file import Architecture, ModelFile

MAX_FILES = 1
_BACKBONE = "backbone."
# Large models adapt the last 16 of 24 blocks.
_ADAPTERS = {"large": 16}


def recognises(shapes: Shapes) -> bool:
    """Whether these are the tensors of SelaVPR++."""
    return {"backbone.adapters.0.branch1.conv.weight", "linear2.weight"} <= shapes.keys()


def convert(paths: Sequence[Path]) -> ModelFile:
    """Convert one checkpoint.

    Raises:
        ModelError: if the file cannot be read or holds something else.
    """
    (path,) = paths
    state = without_counters(read_state(path))
    published = PublishedDinoV2.find(state, _BACKBONE, path)
    check_shapes(state, published.shapes(state) | _added_shapes(state, published), str(path))
    codes = "-codes" if _has_codes(state) else ""
    if (bits := rows_of(state, "linear4.weight")) % 8:
        raise ModelError(f"{path} makes binary codes of {bits} bits; expected whole bytes, such as 512 bits")
    return ModelFile(
        name="selavprpp",
        architecture=Architecture(f"selavprpp:{published.variant.name}{codes}", "selavprpp"),
        # Antialiased, as in the torchvision of that time; the repository pins no version.
        preprocessing=dinov2.preprocessing(antialias=True),
        licence="MIT (Lu-Feng/SelaVPRplusplus, the repository that publishes the weights)",
        training_data="the authors' unified data (github.com/Tong-Jin01/Unified_dataset), on DINOv2 weights",
        tensors={
            **published.tensors(state),
            **renamed(state, "backbone.adapters.", "backbone.adapters."),
            **renamed(state, "linear1.", "aggregator.linear1."),
            **renamed(state, "linear2.", "aggregator.linear2."),
            "aggregator.pool.p": state["aggregation.1.p"],
            **(_code_tensors(state) if codes else {}),
        },
        published=True,
    )


def _has_codes(state: State) -> bool:
    return any(key.startswith("backbone.adapters_hashing.") for key in state)


def _code_tensors(state: State) -> State:
    return {
        **renamed(state, "backbone.adapters_hashing.", "backbone.code_adapters."),
        **renamed(state, "linear3.", "aggregator.linear3."),
        **renamed(state, "linear4.", "aggregator.linear4."),
        "aggregator.code_pool.p": state["aggregation_hashing.1.p"],
    }


def _added_shapes(state: State, published: PublishedDinoV2) -> Shapes:
    """Shapes of the adapters and heads, including the code branch if the state has any tensor of it."""
    shapes = _branch_shapes(state, published, "adapters", "aggregation", ("linear1", "linear2"))
    if _has_codes(state):
        shapes |= _branch_shapes(state, published, "adapters_hashing", "aggregation_hashing", ("linear3", "linear4"))
    return shapes


def _branch_shapes(
    state: State, published: PublishedDinoV2, adapters: str, pool: str, layers: tuple[str, str]
) -> Shapes:
    width, (first, last) = published.width, layers
    shapes = affine(first, width, width) | affine(last, rows_of(state, f"{last}.weight"), width)
    shapes[f"{pool}.1.p"] = (1,)
    for index in range(_ADAPTERS.get(published.variant.name, published.variant.blocks)):
        named = _adapter_shapes(width).items()
        shapes |= {f"{_BACKBONE}{adapters}.{index}.{key}": shape for key, shape in named}
    return shapes


def _adapter_shapes(width: int) -> Shapes:
    hidden = width // 2
    narrow, wide = hidden // 16, hidden // 4
    return {
        **affine("D_fc1", hidden, width),
        **affine("D_fc2", width, hidden),
        **_convolution_shapes("branch1", hidden // 2, hidden, 1),
        **_convolution_shapes("branch2.0", narrow, hidden, 1),
        **_convolution_shapes("branch2.1", wide, narrow, 3),
        **_convolution_shapes("branch3.0", narrow, hidden, 1),
        **_convolution_shapes("branch3.1", wide, narrow, 5),
    }


def _convolution_shapes(name: str, out: int, channels: int, side: int) -> Shapes:
    running: Shapes = {f"{name}.bn.running_{part}": (out,) for part in ("mean", "var")}
    return affine(f"{name}.conv", out, channels, side, side) | affine(f"{name}.bn", out) | running
