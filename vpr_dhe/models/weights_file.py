"""Safetensors files with metadata and a checksum over both."""

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from vpr_dhe.errors import ModelError
from vpr_dhe.models.names import SUFFIX
from vpr_dhe.runtime.durable_files import TEMPORARY_SUFFIX, sync_folder

_METADATA_KEY = "vpr_dhe"


@dataclass(frozen=True)
class WeightsFormat:
    """File format; messages use `named`, the name of such a file, and `remedy`, an instruction for the user."""

    name: str
    named: str
    remedy: str


def write_weights(
    path: Path, format: WeightsFormat, metadata: Mapping[str, Any], tensors: Mapping[str, Tensor]
) -> None:
    """Write tensors with metadata that can be stored as JSON, and their checksum; a file of before is replaced at once.

    Raises:
        ModelError: if the name does not end in .safetensors, or its folder does not exist.
        OSError: if the file cannot be written.
    """
    require_weights_path(path)
    document: dict[str, Any] = {"format": format.name, **metadata}
    document["sha256"] = _digest(document, tensors)
    stored = {name: value.detach().cpu().contiguous() for name, value in tensors.items()}
    temporary = path.with_name(f"{path.name}{TEMPORARY_SUFFIX}")
    try:
        save_file(stored, temporary, metadata={_METADATA_KEY: json.dumps(document)})
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
    except SafetensorError as error:  # of Rust, for errors of the disk
        raise OSError(f"{path} cannot be written ({error})") from error
    finally:
        temporary.unlink(missing_ok=True)
    sync_folder(path.parent)


def read_weights(path: Path, format: WeightsFormat) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Read metadata and tensors, and check their checksum.

    Raises:
        ModelError: if the file is missing, is not of this format, or is damaged.
    """
    if not path.is_file():
        raise ModelError(f"{format.named} {path} does not exist; give the path of a {SUFFIX} file")
    try:
        with safe_open(path, framework="pt") as file:
            metadata = json.loads((file.metadata() or {}).get(_METADATA_KEY, "null"))
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a mapping)
    except (SafetensorError, OSError, ValueError) as error:
        raise ModelError(f"{path} is not a readable safetensors file ({error}); {format.remedy}") from error
    if not isinstance(metadata, dict) or metadata.get("format") != format.name:
        found = metadata.get("format") if isinstance(metadata, dict) else None
        remedy = format.remedy if found is None else f"it is {found!r}: give models by --model, networks by --weights"
        raise ModelError(f"{path} has no {format.name!r} metadata; {remedy}")
    if _digest(metadata, tensors) != metadata.get("sha256"):
        raise ModelError(f"{path} does not agree with its checksum; {format.remedy}")
    return metadata, tensors


def require_weights_path(path: Path) -> None:
    """Check that a file of weights can be written to a path.

    Raises:
        ModelError: if the name does not end in .safetensors, or its folder does not exist.
    """
    if path.suffix != SUFFIX:
        raise ModelError(f"{path} is not a name for a model file; it must end in {SUFFIX}")
    if not path.parent.is_dir():
        raise ModelError(f"folder {path.parent} does not exist; create it first")


def tensors_digest(tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 of names, types, shapes and bytes, independent of the order of the tensors."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        value = tensors[name].detach().cpu().contiguous()
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}\n".encode())
        digest.update(value.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _digest(metadata: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 of all metadata and all weights."""
    signed = {name: value for name, value in metadata.items() if name != "sha256"}
    return hashlib.sha256(json.dumps(signed, sort_keys=True).encode() + tensors_digest(tensors).encode()).hexdigest()
