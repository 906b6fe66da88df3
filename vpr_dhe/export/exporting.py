"""A model exported: its networks converted and checked, described, and put in place all at once."""

from dataclasses import asdict, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Literal, TypeAlias

from vpr_dhe.errors import BadInputError, ModelError
from vpr_dhe.export.conversion import write_onnx
from vpr_dhe.export.extra import require_extra
from vpr_dhe.export.networks import ExportableNetwork, extractor_network, head_network
from vpr_dhe.features.base import Extractor
from vpr_dhe.features.extractor import NeuralExtractor, load_extractor
from vpr_dhe.models.exported_model import EXTRACTOR, HEAD, ExportedModel, ExportInfo, require_weights
from vpr_dhe.models.model_file import ModelFile

# The extractor, and the head where there is one.
ALL = "all"
Part: TypeAlias = Literal["all", "extractor", "head"]


def export_model(name: str, out: Path, part: Part = ALL) -> ExportedModel:
    """Export a model to a new folder; if anything fails, nothing is left there.

    Args:
        name: of the model, as for `load_extractor`.
        out: a folder that is empty, or can be made in an existing one.
        part: what of it.

    Raises:
        MissingExtraError: if the packages for it are not installed.
        BadInputError: if the folder holds something, or cannot be made.
        ModelError: if there is no such model, or it has no such network.
        ExportError: if a network cannot be converted, or computes something else afterwards.
    """
    require_extra()
    _require_new_folder(out)
    extractor = load_extractor(name)
    model = require_weights(extractor.model_file)
    networks = _networks(extractor, model, part)
    facts = _facts(extractor, model, with_head=HEAD in networks)
    with TemporaryDirectory(prefix=f".{out.name}-", dir=out.absolute().parent) as scratch:
        folder = Path(scratch, out.name)
        folder.mkdir()
        parts = {key: write_onnx(network, folder / f"{key}.onnx", asdict(facts)) for key, network in networks.items()}
        exported = ExportedModel(folder, facts, parts)
        exported.save()
        folder.replace(out)
    return replace(exported, folder=out.resolve())


def _networks(extractor: Extractor, model: ModelFile, part: Part) -> dict[str, ExportableNetwork]:
    networks, head = {}, model.architecture.head
    if part != HEAD:
        if not isinstance(extractor, NeuralExtractor):
            remedy = "export a network such as cct-offline" if head is None else f"--part head exports its head {head}"
            raise ModelError(f"model {model.name!r} describes images by no network but by code of OpenCV; {remedy}")
        networks[EXTRACTOR] = extractor_network(extractor, model.preprocessing)
    if part == HEAD or (part == ALL and head is not None):
        networks[HEAD] = head_network(model, extractor.spec)
    return networks


def _facts(extractor: Extractor, model: ModelFile, *, with_head: bool) -> ExportInfo:
    spec, architecture = extractor.spec, model.architecture
    return ExportInfo(
        name=model.name,
        fingerprint=spec.fingerprint,
        architecture=architecture if with_head else replace(architecture, head=None),
        preprocessing=model.preprocessing,
        licence=model.licence,
        training_data=model.training_data,
        dimension=spec.dimension,
        local_dimension=spec.local_dimension,
        grid=spec.grid,
    )


def _require_new_folder(folder: Path) -> None:
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise BadInputError(f"{folder} already holds something; give the name of a new folder for the export")
    if not folder.absolute().parent.is_dir():
        raise BadInputError(f"{folder} lies in a folder that does not exist; give a folder in an existing one")
