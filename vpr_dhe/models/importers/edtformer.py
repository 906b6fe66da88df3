"""Importer of EDTformer.

Source: https://github.com/Tong-Jin01/EDTformer (Jin et al., "EDTformer: An efficient decoder transformer for visual
place recognition", TCSVT 2025).
"""

from collections.abc import Sequence
from pathlib import Path

from vpr_dhe.models.importers import dinov2
from vpr_dhe.models.importers.base import Shapes, State, affine, check_shapes, read_state, renamed, rows_of
from vpr_dhe.models.importers.boq import attention_shapes
from vpr_dhe.models.importers.dinov2 import PublishedDinoV2
from vpr_dhe.models.model_file import Architecture, ModelFile

MAX_FILES = 1
_BACKBONE = "backbone."
_RANK = 4


def recognises(shapes: Shapes) -> bool:
    """Whether these are the tensors of EDTformer."""
    return {"queries", "decoder.layers.0.multihead_attn.in_proj_weight", "row_proj.weight"} <= shapes.keys()


def convert(paths: Sequence[Path]) -> ModelFile:
    """Convert one checkpoint; the sizes of the decoder are inferred from the shapes.

    Raises:
        ModelError: if the file cannot be read or holds something else.
    """
    (path,) = paths
    state = read_state(path)
    published = PublishedDinoV2.find(state, _BACKBONE, path)
    check_shapes(state, published.shapes(state) | _added_shapes(state, published), str(path))
    aggregator = {"aggregator.queries": state["queries"]}
    for part in ("fc.", "channel_proj.", "row_proj."):
        aggregator |= renamed(state, part, f"aggregator.{part}")
    return ModelFile(
        name="edtformer",
        architecture=Architecture(f"edtformer:{published.variant.name}", "edtformer"),
        preprocessing=dinov2.preprocessing(antialias=False),
        licence="MIT (Tong-Jin01/EDTformer, the repository that publishes the weights)",
        training_data="GSV-Cities, on DINOv2 weights",
        tensors={
            **published.tensors(state),
            **renamed(state, "backbone.adapters.", "backbone.adapters."),
            **renamed(state, "decoder.layers.", "aggregator.layers."),
            **aggregator,
        },
        published=True,
    )


def _added_shapes(state: State, published: PublishedDinoV2) -> Shapes:
    width, queries = published.width, state["queries"].shape[1] if "queries" in state else 0
    shapes: Shapes = {
        "queries": (1, queries, width),
        **affine("fc", width, width),
        **affine("channel_proj", rows_of(state, "channel_proj.weight"), width),
        **affine("row_proj", rows_of(state, "row_proj.weight"), queries),
    }
    for adapter in (f"{_BACKBONE}adapters.{index}" for index in range(published.variant.blocks)):
        shapes |= affine(f"{adapter}.D_fc1", _RANK, width) | affine(f"{adapter}.D_fc2", width, _RANK)
    layers = max(1, sum(key.startswith("decoder.layers.") and key.endswith(".norm1.bias") for key in state))
    for layer in (f"decoder.layers.{index}" for index in range(layers)):
        shapes |= attention_shapes(f"{layer}.self_attn", width) | attention_shapes(f"{layer}.multihead_attn", width)
        shapes |= affine(f"{layer}.norm1", width) | affine(f"{layer}.norm2", width)
    return shapes
