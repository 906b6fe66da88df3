"""Importer of FoL, with its local maps.

Source: https://github.com/chenshunpeng/FoL (Wang et al., "Focus on Local: Finding reliable discriminative regions for
visual place recognition", AAAI 2025).
"""

from collections.abc import Sequence
from pathlib import Path

from vpr_dhe.models.importers import dinov2
from vpr_dhe.models.importers.base import Shapes, State, check_shapes, read_state, renamed, rows_of
from vpr_dhe.models.importers.dinov2 import PublishedDinoV2
from vpr_dhe.models.importers.salad import transport_shapes, transport_tensors
from vpr_dhe.models.model_file import Architecture, ModelFile

MAX_FILES = 1
_BACKBONE, _AGGREGATOR = "backbone.model.", "aggregator."
# Cells of local maps are a quarter of a patch wide: 12 cells are three patches, as for other models on DINOv2.
_TOLERANCE_CELLS = 12.0


def recognises(shapes: Shapes) -> bool:
    """Whether these are the tensors of FoL."""
    return {"upconv.weight", "upconv2.weight", f"{_AGGREGATOR}score.0.weight"} <= shapes.keys()


def convert(paths: Sequence[Path]) -> ModelFile:
    """Convert `FoL_base.pth` or `FoL_large.pth`.

    Raises:
        ModelError: if the file cannot be read or holds something else.
    """
    (path,) = paths
    state = read_state(path)
    published = PublishedDinoV2.find(state, _BACKBONE, path)
    aggregator = transport_shapes(state, _AGGREGATOR, published.width)
    check_shapes(state, published.shapes(state) | aggregator | _local_shapes(state, published.width), str(path))
    local_head = renamed(state, "upconv", "local_head.upconv")
    return ModelFile(
        name="fol",
        architecture=Architecture(f"fol:{published.name}", "fol", local_head="fol", tolerance_cells=_TOLERANCE_CELLS),
        preprocessing=dinov2.preprocessing(antialias=False),
        licence="Apache-2.0 (chenshunpeng/FoL, the repository that publishes the weights)",
        training_data="see the paper; the checkpoint does not say; on DINOv2 weights",
        tensors=published.tensors(state) | transport_tensors(state, _AGGREGATOR) | local_head,
        published=True,
    )


def _local_shapes(state: State, width: int) -> Shapes:
    """Shapes of the transposed convolutions, whose first axis is that of their input."""
    hidden, out = rows_of(state, "upconv.bias"), rows_of(state, "upconv2.bias")
    return {
        "upconv.weight": (width, hidden, 3, 3),
        "upconv.bias": (hidden,),
        "upconv2.weight": (hidden, out, 3, 3),
        "upconv2.bias": (out,),
    }
