"""Importer of MegaLoc, of both releases.

Source: https://github.com/gmberton/MegaLoc (Berton and Masone, "MegaLoc: One retrieval to place them all", CVPR
workshops 2025).
"""

from collections.abc import Sequence
from pathlib import Path

from vpr_dhe.models.importers import dinov2
from vpr_dhe.models.importers.base import Shapes, affine, check_shapes, read_state, renamed, rows_of
from vpr_dhe.models.importers.dinov2 import PublishedDinoV2
from vpr_dhe.models.importers.salad import transport_shapes, transport_tensors
from vpr_dhe.models.model_file import Architecture, ModelFile

MAX_FILES = 1
_AGGREGATOR, _LINEAR = "aggregator.agg.", "aggregator.linear"
# The release of 2025 nests DINOv2 one level deeper.
_BACKBONES = ("backbone.model.", "backbone.")


def recognises(shapes: Shapes) -> bool:
    """Whether these are the tensors of MegaLoc."""
    return {f"{_AGGREGATOR}dust_bin", f"{_LINEAR}.weight"} <= shapes.keys()


def convert(paths: Sequence[Path]) -> ModelFile:
    """Convert `model.safetensors`, or `megaloc.torch` of the first release.

    Raises:
        ModelError: if the file cannot be read or holds something else.
    """
    (path,) = paths
    state = read_state(path)
    prefix = next((prefix for prefix in _BACKBONES if f"{prefix}cls_token" in state), _BACKBONES[-1])
    published = PublishedDinoV2.find(state, prefix, path)
    layers = transport_shapes(state, _AGGREGATOR, published.width)
    unprojected = _rows(layers, "token_features.2") + _rows(layers, "score.3") * _rows(layers, "cluster_features.3")
    aggregator = {
        **layers,
        f"{_AGGREGATOR}dust_bin": (),
        **affine(_LINEAR, rows_of(state, f"{_LINEAR}.weight"), unprojected),
    }
    check_shapes(state, published.shapes(state) | aggregator, str(path))
    tensors = transport_tensors(state, _AGGREGATOR) | renamed(state, f"{_LINEAR}.", "aggregator.linear.")
    return ModelFile(
        name="megaloc",
        architecture=Architecture(f"dinov2:{published.name}", "salad"),
        preprocessing=dinov2.preprocessing(antialias=True),
        licence="MIT (gmberton/MegaLoc, the repository that publishes the weights)",
        training_data="GSV-Cities, Mapillary Street-Level Sequences, MegaScenes, ScanNet and SF-XL, on DINOv2 weights",
        tensors=published.tensors(state) | tensors,
        published=True,
    )


def _rows(shapes: Shapes, layer: str) -> int:
    return shapes[f"{_AGGREGATOR}{layer}.bias"][0]
