"""Importer of the checkpoints published with EigenPlaces, which have the layout of CosPlace.

Source: https://github.com/gmberton/EigenPlaces (Berton et al., "EigenPlaces: Training Viewpoint Robust Models for
Visual Place Recognition", ICCV 2023).
"""

from collections.abc import Sequence
from pathlib import Path

from vpr_dhe.models.importers import cosplace
from vpr_dhe.models.importers.base import Shapes
from vpr_dhe.models.model_file import ModelFile

MAX_FILES = 1


def recognises(shapes: Shapes) -> bool:
    """Whether tensors are those of EigenPlaces or CosPlace, which have the same names."""
    return cosplace.recognises(shapes)


def convert(paths: Sequence[Path]) -> ModelFile:
    """Convert one checkpoint; see `cosplace.import_gem_linear`."""
    return cosplace.import_gem_linear(
        *paths,
        family="eigenplaces",
        licence="MIT (gmberton/EigenPlaces, the repository that publishes the weights)",
        training_data="SF-XL, on ImageNet-1k weights",
    )
