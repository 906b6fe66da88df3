"""Importer of ImAge.

Source: https://github.com/Lu-Feng/ImAge (Lu et al., "Towards implicit aggregation: robust image representation for
place recognition in the transformer era", NeurIPS 2025).
"""

from collections.abc import Sequence
from pathlib import Path

from vpr_dhe.models.importers import dinov2
from vpr_dhe.models.importers.base import Shapes, check_shapes, read_state
from vpr_dhe.models.importers.dinov2 import PublishedDinoV2
from vpr_dhe.models.model_file import Architecture, ModelFile

MAX_FILES = 1
_BACKBONE, _TOKENS = "backbone.", "learnable_aggregation_tokens"


def recognises(shapes: Shapes) -> bool:
    """Whether these are the tensors of ImAge."""
    return _TOKENS in shapes


def convert(paths: Sequence[Path]) -> ModelFile:
    """Convert `ImAge_GSV.pth` or `ImAge_Merged.pth`.

    Raises:
        ModelError: if the file cannot be read or holds something else.
    """
    (path,) = paths
    state = read_state(path)
    published = PublishedDinoV2.find(state, _BACKBONE, path)._replace(registers=4)
    check_shapes(state, published.shapes(state) | {_TOKENS: (1, 8, published.width)}, str(path))
    return ModelFile(
        name="imagevpr",
        architecture=Architecture(f"imagevpr:{published.variant.name}", "aggregation-tokens"),
        preprocessing=dinov2.preprocessing(antialias=True),
        licence="MIT (Lu-Feng/ImAge, the repository that publishes the weights)",
        training_data="GSV-Cities (ImAge_GSV) or the authors' merged data (ImAge_Merged), on DINOv2 weights; the "
        "checkpoint does not say which",
        tensors=published.tensors(state) | {"backbone.aggregation_tokens": state[_TOKENS]},
        published=True,
    )
