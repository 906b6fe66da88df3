"""Importers of published checkpoints as model files; a new family is one new file and one line here."""

from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, cast

from vpr_dhe.errors import ModelError

if TYPE_CHECKING:
    from vpr_dhe.models.importers.base import Importer
    from vpr_dhe.models.model_file import ModelFile

# The module of each family is an `Importer`. It is imported on use, because torch takes seconds to import.
FAMILIES = {
    "dhe-vpr": "dhe_vpr",
    "cct": "cct",
    "megaloc": "megaloc",
    "salad": "salad",
    "cliquemining": "cliquemining",
    "boq": "boq",
    "imagevpr": "imagevpr",
    "selavprpp": "selavprpp",
    "fol": "fol",
    "edtformer": "edtformer",
}


def import_checkpoints(family: str, paths: Sequence[Path]) -> "ModelFile":
    """Convert the files of one model of a family.

    Args:
        family: one of FAMILIES: `dhe-vpr` takes an extractor and, in any order, its head; others one file.
        paths: checkpoints as published.

    Raises:
        ModelError: if the family is unknown or takes fewer files, or a file is not one of its checkpoints.
    """
    if family not in FAMILIES:
        raise ModelError(f"unknown family of checkpoints {family!r}; expected one of {', '.join(FAMILIES)}")
    importer = load_importer(family)
    if len(paths) > importer.MAX_FILES:
        raise ModelError(f"{len(paths)} files were given; kind {family} takes {importer.MAX_FILES} at most")
    return importer.convert(paths)


def load_importer(family: str) -> "Importer":
    """Import the module of a family."""
    return cast("Importer", import_module(f"{__name__}.{FAMILIES[family]}"))
