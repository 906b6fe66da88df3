"""Importers of published checkpoints as model or network files; a new family is one new file and one line here."""

import logging
from collections.abc import Sequence
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, cast

from vpr_dhe.errors import ModelError
from vpr_dhe.models.published import PUBLISHED_NETWORKS, of_family

if TYPE_CHECKING:
    from vpr_dhe.models.importers.base import Importer
    from vpr_dhe.models.model_file import ModelFile
    from vpr_dhe.models.network_file import NetworkFile
    from vpr_dhe.records import StrPath

# The module of each family is an `Importer`. It is imported on use, because torch takes seconds to import.
FAMILIES = {
    "dhe-vpr": "dhe_vpr",
    "cct": "cct",
    "cosplace": "cosplace",
    "eigenplaces": "eigenplaces",
    "mixvpr": "mixvpr",
    "megaloc": "megaloc",
    "salad": "salad",
    "cliquemining": "cliquemining",
    "boq": "boq",
    "imagevpr": "imagevpr",
    "selavprpp": "selavprpp",
    "fol": "fol",
    "edtformer": "edtformer",
    "moco": "moco",
}
# Families of networks that estimate homographies, which become network files for `--weights`.
NETWORKS = {"ransac-flow": "ransac_flow", "ihn": "ihn"}

_ALL = {**FAMILIES, **NETWORKS}
_ANY = object()
_log = logging.getLogger(__name__)


def import_checkpoints(family: str | None, paths: "Sequence[StrPath]") -> "ModelFile | NetworkFile":
    """Convert the files of one model of a family; a licence that restricts its use is logged as a warning.

    Args:
        family: one of FAMILIES or NETWORKS; None recognises it from the tensors. `dhe-vpr` takes an extractor and its
            head, in any order; the others take one file.
        paths: checkpoints as published.

    Raises:
        ModelError: if the family is unknown or not recognised, takes fewer files, or a file is not one of its
            checkpoints.
    """
    paths = [Path(path) for path in paths]
    if family is None:
        family = family_of(paths)
    if family not in _ALL:
        raise ModelError(f"unknown family of checkpoints {family!r}; expected one of {', '.join(_ALL)}")
    importer = load_importer(family)
    if len(paths) > importer.MAX_FILES:
        raise ModelError(f"{len(paths)} files were given; kind {family} takes {importer.MAX_FILES} at most")
    model = importer.convert(paths)
    _tell_restriction(family, model.licence)
    return _with_origin(model, family, paths)


def family_of(paths: "Sequence[StrPath]") -> str:
    """Recognise the family of the files of one model by their tensors.

    The container and the names of the files distinguish families with the same tensors.

    Raises:
        ModelError: if a file cannot be read, or not exactly one family matches.
    """
    from vpr_dhe.models.importers.base import listed, read_checkpoint, shapes_of

    paths = [Path(path) for path in paths]
    shapes, wrappers = [], set()
    for path in paths:  # one after the other, because they are large
        checkpoint = read_checkpoint(path)
        shapes.append(shapes_of(checkpoint.state))
        wrappers.add(checkpoint.wrapper)
    fitting = [family for family in _ALL if all(map(load_importer(family).recognises, shapes))]
    if not fitting:
        raise ModelError(
            f"{' and '.join(map(str, paths))} of {listed(list(shapes[0]))} is of no known family "
            f"({', '.join(_ALL)}); give a file as its authors publish it"
        )
    if len(chosen := _disambiguate(fitting, wrappers, paths)) > 1:
        raise ModelError(
            f"{paths[0]} matches more than one family, whose tensors are identical; give "
            f"{' or '.join(f'--kind {family}' for family in chosen)}"
        )
    return chosen[0]


def _disambiguate(fitting: list[str], wrappers: set[str | None], paths: Sequence[Path]) -> list[str]:
    """Families that match both the container and the file names, or the container if no name matches."""
    contained = [family for family in fitting if _is_published_in(family, wrappers)]
    named = [family for family in fitting if any(family in path.name.lower() for path in paths)]
    by_both = [family for family in contained if family in named]
    if contained and named:
        return by_both or fitting
    return contained or named or fitting


def _is_published_in(family: str, wrappers: set[str | None]) -> bool:
    wrapper = getattr(load_importer(family), "WRAPPER", _ANY)
    return wrapper is _ANY or wrappers == {wrapper}


def _with_origin(model: "ModelFile | NetworkFile", family: str, paths: Sequence[Path]) -> "ModelFile | NetworkFile":
    """Copy of a model with names and hashes of its checkpoints, and their URL if they have their published names."""
    from vpr_dhe.models.exported_model import sha256_of
    from vpr_dhe.models.model_file import Origin

    files = {path.name: sha256_of(path) for path in paths}
    networks = [network for network in PUBLISHED_NETWORKS.values() if network.family == family]
    urls = {one.url for one in (*of_family(family), *networks) if list(files) == [one.file]}
    return replace(model, origin=Origin(files, urls.pop() if len(urls) == 1 else None))


def _tell_restriction(family: str, licence: str) -> None:
    restrictions = {one.restriction for one in of_family(family)} - {None}
    for restriction in restrictions or ({f"licence: {licence}"} if licence.startswith("none given") else ()):
        _log.warning("%s", restriction)


def load_importer(family: str) -> "Importer":
    """Import the module of a family."""
    return cast("Importer", import_module(f"{__name__}.{_ALL[family]}"))
