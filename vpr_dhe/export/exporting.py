"""Atomic export of a model to a folder of ONNX files and their description."""

from dataclasses import asdict, replace
from pathlib import Path
from tempfile import TemporaryDirectory

from vpr_dhe.errors import BadInputError, ModelError
from vpr_dhe.export.networks import head_network
from vpr_dhe.features.base import Extractor
from vpr_dhe.features.exportable import extractor_network
from vpr_dhe.features.extractor import load_extractor
from vpr_dhe.features.neural_extractor import NeuralExtractor
from vpr_dhe.models.catalogue import is_export
from vpr_dhe.models.exported_model import EXTRACTOR, HEAD, ExportedModel, ExportInfo, require_weights
from vpr_dhe.models.model_file import ModelFile
from vpr_dhe.models.onnx_conversion import ExportableNetwork, write_onnx
from vpr_dhe.records import StrPath
from vpr_dhe.runtime.choices import AUTO, ExportPart
from vpr_dhe.runtime.extras import require_extra


def export_model(name: str, out: StrPath, part: ExportPart = "all") -> ExportedModel:
    """Export a model to a new folder; on failure, nothing is left there.

    Args:
        name: name of the model, as for `load_extractor`.
        out: an empty folder, or the path of a new one in an existing folder.
        part: networks to export.

    Raises:
        MissingExtraError: if the packages of the extra `export` are not installed.
        BadInputError: if the folder is not empty, or cannot be created.
        ModelError: if the model is unknown, or has no such network.
        ExportError: if a network cannot be converted, or its outputs differ afterwards.
    """
    out = Path(out)
    require_extra("export")
    _require_new_folder(out)
    extractor = load_extractor(name, runtime=AUTO if is_export(name) else "torch")
    model = require_weights(extractor.model_file)
    networks = _networks(extractor, model, part)
    info = _info(extractor, model, with_head=HEAD in networks)
    with TemporaryDirectory(prefix=f".{out.name}-", dir=out.absolute().parent) as scratch:
        folder = Path(scratch, out.name)
        folder.mkdir()
        parts = {key: write_onnx(network, folder / f"{key}.onnx", asdict(info)) for key, network in networks.items()}
        exported = ExportedModel(folder, info, parts)
        exported.save()
        folder.replace(out)
    return replace(exported, folder=out.resolve())


def _networks(extractor: Extractor, model: ModelFile, part: ExportPart) -> dict[str, ExportableNetwork]:
    networks, head = {}, model.architecture.head
    if part != HEAD:
        if not isinstance(extractor, NeuralExtractor):
            remedy = "export a network such as cct-offline" if head is None else f"--part head exports its head {head}"
            raise ModelError(f"model {model.name!r} has no network that extracts features; {remedy}")
        networks[EXTRACTOR] = extractor_network(extractor, model.preprocessing)
    if part == HEAD or (part == "all" and head is not None):
        networks[HEAD] = head_network(model, extractor.spec)
    return networks


def _info(extractor: Extractor, model: ModelFile, *, with_head: bool) -> ExportInfo:
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
        published=model.published,
        code_bits=spec.code_bits,
    )


def _require_new_folder(folder: Path) -> None:
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise BadInputError(f"{folder} is not empty; give the name of a new folder for the export")
    if not folder.absolute().parent.is_dir():
        raise BadInputError(f"{folder} lies in a folder that does not exist; give a folder in an existing one")
