"""Folders written by `vpr-dhe export`: networks as ONNX files, and their description in `export.json`."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from vpr_dhe.errors import ModelError
from vpr_dhe.models.model_file import Architecture, ModelFile, known_preprocessing
from vpr_dhe.models.onnx_session import OnnxSession
from vpr_dhe.records import Grid, Preprocessing, StrPath
from vpr_dhe.runtime.checksums import file_sha256, json_sha256

FORMAT = "vpr-dhe export 1"
DESCRIPTION = "export.json"
EXTRACTOR, HEAD = "extractor", "head"
_REMEDY = "export the model again with `vpr-dhe export`"


@dataclass(frozen=True)
class TensorInfo:
    """Name, type, shape and meaning of an input or output; strings in `shape` name variable lengths."""

    name: str
    type: str
    shape: tuple[str | int, ...]
    meaning: str


@dataclass(frozen=True)
class ExportedPart:
    """One network: SHA-256 of its files by name (the ONNX file first), its inputs and its outputs.

    `relative_difference` is the largest difference found between the outputs of ONNX Runtime and torch.
    """

    files: Mapping[str, str]
    inputs: tuple[TensorInfo, ...]
    outputs: tuple[TensorInfo, ...]
    relative_difference: float


@dataclass(frozen=True)
class ExportInfo:
    """Properties of an exported model, independent of the runtime.

    `fingerprint`, `dimension`, `local_dimension`, `grid` and `code_bits` are as in `ExtractorSpec`, `published` is as
    in `ModelFile`.
    """

    name: str
    fingerprint: str
    architecture: Architecture
    preprocessing: Preprocessing
    licence: str
    training_data: str
    dimension: int
    local_dimension: int
    grid: Grid
    published: bool = False
    code_bits: int = 0


@dataclass(frozen=True)
class ExportedModel:
    """Exported model on disk; its sessions run on `device`."""

    folder: Path
    info: ExportInfo
    parts: Mapping[str, ExportedPart]
    device: str = "cpu"

    @property
    def name(self) -> str:
        """Name of the model that was exported."""
        return self.info.name

    @property
    def published(self) -> bool:
        """Whether the weights were published with a paper; see `ModelFile`."""
        return self.info.published

    @property
    def architecture(self) -> Architecture:
        """Architecture of the model; `head` is None unless it was exported."""
        return self.info.architecture

    def session(self, part: str) -> OnnxSession:
        """Open one of the networks after checking its files against their checksums.

        Raises:
            ModelError: if the export does not include the part, or it is damaged.
        """
        if part not in self.parts:
            raise ModelError(
                f"{self.folder} does not contain the {part} of {self.name!r}, only {', '.join(self.parts)}; "
                "export it as well"
            )
        files = self.parts[part].files
        for name, sha256 in files.items():
            if sha256_of(self.folder / name) != sha256:
                raise ModelError(f"{self.folder / name} does not agree with its checksum; {_REMEDY}")
        return OnnxSession(self.folder / next(iter(files)), self.device)

    def save(self) -> None:
        """Write the description beside the ONNX files."""
        info = without_zero_code_bits(asdict(self.info))
        document = {"format": FORMAT, **info, "parts": {k: asdict(v) for k, v in self.parts.items()}}
        text = json.dumps(document | {"sha256": json_sha256(document)}, indent=1)
        (self.folder / DESCRIPTION).write_text(f"{text}\n")


def load_exported(folder: StrPath, device: str = "cpu") -> ExportedModel:
    """Read the description of an export; networks are read by `session`.

    Args:
        folder: folder written by `vpr-dhe export`.
        device: a torch device.

    Raises:
        ModelError: if the description is missing, damaged, or of another format or version.
    """
    folder = Path(folder)
    path = folder / DESCRIPTION
    if not path.is_file():
        raise ModelError(f"folder {folder} contains no {DESCRIPTION}; give one that `vpr-dhe export` wrote")
    try:
        document = json.loads(path.read_text())
    except ValueError as error:
        raise ModelError(f"{path} is not readable JSON ({error}); {_REMEDY}") from error
    if not isinstance(document, dict) or document.get("format") != FORMAT:
        raise ModelError(f"{path} is not of the format {FORMAT!r}; {_REMEDY}")
    if document.pop("sha256", None) != json_sha256(document):
        raise ModelError(f"{path} does not agree with its checksum; {_REMEDY}")
    try:
        parts = {name: _part_from_json(stored) for name, stored in document.pop("parts").items()}
        return ExportedModel(folder.resolve(), _info_from_json(document, path), parts, device)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise ModelError(f"{path} was written by another version ({error}); {_REMEDY} of this version") from error


def without_zero_code_bits(fields: dict[str, Any]) -> dict[str, Any]:
    """Copy of a description without `code_bits` if that is 0, which versions without binary codes can read."""
    return {name: value for name, value in fields.items() if name != "code_bits" or value}


def require_weights(model: ModelFile | ExportedModel) -> ModelFile:
    """Return the model as a model file, with weights for torch.

    Raises:
        ModelError: if the model is an export.
    """
    if isinstance(model, ExportedModel):
        raise ModelError(
            f"{model.folder} is an export, which can neither be trained nor exported again; "
            f"give the original model, {model.name!r}"
        )
    return model


def sha256_of(path: Path) -> str:
    """SHA-256 of a file.

    Raises:
        ModelError: if it cannot be read.
    """
    try:
        return file_sha256(path)
    except OSError as error:
        raise ModelError(f"{path} cannot be read ({error.strerror}); {_REMEDY}") from error


def _info_from_json(document: dict[str, Any], path: Path) -> ExportInfo:
    document.pop("format")
    architecture = Architecture(**document.pop("architecture"))
    preprocessing, grid = known_preprocessing(document.pop("preprocessing"), path), Grid(*document.pop("grid"))
    return ExportInfo(architecture=architecture, preprocessing=preprocessing, grid=grid, **document)


def _part_from_json(stored: dict[str, Any]) -> ExportedPart:
    sides = {
        side: tuple(TensorInfo(**(row | {"shape": tuple(row["shape"])})) for row in stored[side])
        for side in ("inputs", "outputs")
    }
    return ExportedPart(files=stored["files"], relative_difference=stored["relative_difference"], **sides)
