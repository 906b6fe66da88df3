"""Importer of CliqueMining: DINOv2-SALAD trained on mined cliques of images.

Source: https://github.com/serizba/cliquemining (Izquierdo and Civera, "Close, but not there: boosting geographic
distance sensitivity in visual place recognition", ECCV 2024).
"""

from collections.abc import Sequence
from pathlib import Path

from vpr_dhe.models.importers import salad
from vpr_dhe.models.importers.base import LIGHTNING, Shapes
from vpr_dhe.models.model_file import ModelFile

MAX_FILES = 1
WRAPPER = LIGHTNING  # DINOv2-SALAD, which has the same tensors, is published as a bare state dictionary


def recognises(shapes: Shapes) -> bool:
    """Whether these are the tensors of CliqueMining, which are also those of DINOv2-SALAD."""
    return salad.recognises(shapes)


def convert(paths: Sequence[Path]) -> ModelFile:
    """Convert one checkpoint.

    Raises:
        ModelError: if the file cannot be read or holds something else.
    """
    return salad.import_salad(
        paths[0],
        name="cliquemining",
        licence="GPL-3.0 (serizba/cliquemining, the repository that publishes the weights)",
        training_data="GSV-Cities and Mapillary Street-Level Sequences, on DINOv2 weights",
    )
