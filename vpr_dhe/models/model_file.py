"""The model file: weights with everything that is needed to use them, in one safetensors file."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from vpr_dhe.errors import ModelError
from vpr_dhe.records import Preprocessing

FORMAT = "vpr-dhe model 1"
MODEL_SUFFIX = ".safetensors"
_METADATA_KEY = "vpr_dhe"


@dataclass(frozen=True)
class Architecture:
    """Names of the registered parts that the weights belong to, with what their constructors need.

    `blocks` truncates the backbone (None keeps all its blocks); `head` names the homography network that came with
    the extractor; `unit_norm` says whether global descriptors are L2-normalised at the index boundary;
    `tolerance_cells` is the reprojection error, in cells of the local map, up to which a match counts as an inlier
    (the DHE paper: 48 px for cells of 16 px).
    """

    backbone: str
    aggregator: str
    blocks: int | None = None
    head: str | None = None
    unit_norm: bool = True
    tolerance_cells: float = 3.0


@dataclass(frozen=True)
class ModelFile:
    """A model: its weights by name (`backbone.*`, `aggregator.*`, `head.*`) and the facts about them."""

    name: str
    architecture: Architecture
    preprocessing: Preprocessing
    licence: str
    training_data: str
    tensors: Mapping[str, Tensor] = field(repr=False)

    def part(self, prefix: str) -> dict[str, Tensor]:
        """The state of one part, its prefix removed."""
        start = f"{prefix}."
        return {name.removeprefix(start): value for name, value in self.tensors.items() if name.startswith(start)}

    def without_head(self) -> "ModelFile":
        """The extractor alone."""
        kept = {name: value for name, value in self.tensors.items() if not name.startswith("head.")}
        return replace(self, architecture=replace(self.architecture, head=None), tensors=kept)

    def with_head(self, head: str, state: Mapping[str, Tensor]) -> "ModelFile":
        """The extractor with a copy of a head's state, in the place of any other head."""
        extractor = self.without_head()
        tensors = {f"head.{name}": value.detach().cpu().clone() for name, value in state.items()}
        return replace(
            self,
            architecture=replace(self.architecture, head=head),
            tensors={**extractor.tensors, **tensors},
        )

    def in_half_precision(self) -> "ModelFile":
        """The model with weights of half the size; what it computes, it still computes in full precision."""
        return replace(self, tensors={name: value.half() for name, value in self.tensors.items()})

    @property
    def extractor_fingerprint(self) -> str:
        """SHA-256 over all that decides the features: extractor weights, architecture and preprocessing."""
        extractor = {name: value for name, value in self.tensors.items() if not name.startswith("head.")}
        architecture = asdict(replace(self.architecture, head=None, tolerance_cells=0.0))
        facts = json.dumps([architecture, asdict(self.preprocessing)], sort_keys=True)
        return hashlib.sha256(facts.encode() + tensors_digest(extractor).encode()).hexdigest()


def _digest(metadata: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 over all facts and all weights."""
    facts = {name: value for name, value in metadata.items() if name != "sha256"}
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode() + tensors_digest(tensors).encode()).hexdigest()


def tensors_digest(tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 over names, types, shapes and bytes, independent of the order of the tensors."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        value = tensors[name].detach().cpu().contiguous()
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}\n".encode())
        digest.update(value.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def save_model(model: ModelFile, path: Path) -> None:
    """Write a model file; its digest is computed here.

    Raises:
        ModelError: if the name does not end in .safetensors, or its folder does not exist.
    """
    require_model_path(path)
    metadata = {
        "format": FORMAT,
        "name": model.name,
        "architecture": asdict(model.architecture),
        "preprocessing": asdict(model.preprocessing),
        "licence": model.licence,
        "training_data": model.training_data,
    }
    metadata["sha256"] = _digest(metadata, model.tensors)
    tensors = {name: value.detach().cpu().contiguous() for name, value in model.tensors.items()}
    save_file(tensors, path, metadata={_METADATA_KEY: json.dumps(metadata)})


def require_model_path(path: Path) -> None:
    """Raise ModelError unless a model file can be written here."""
    if path.suffix != MODEL_SUFFIX:
        raise ModelError(f"{path} is no name for a model file; let it end in {MODEL_SUFFIX}")
    if not path.parent.is_dir():
        raise ModelError(f"folder {path.parent} does not exist; make it first")


def load_model(path: Path) -> ModelFile:
    """Read a model file and check its digest.

    Raises:
        ModelError: if the file is missing, is not a model file of this format, or its weights are damaged.
    """
    if not path.is_file():
        raise ModelError(f"model file {path} does not exist; give the path of a .safetensors file (`query --model`)")
    try:
        with safe_open(path, framework="pt") as file:
            metadata = json.loads((file.metadata() or {}).get(_METADATA_KEY, "null"))
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a mapping)
    except (SafetensorError, OSError, ValueError) as error:
        raise ModelError(f"{path} is not a readable safetensors file ({error}); fetch or convert it again") from error
    if not isinstance(metadata, dict) or metadata.get("format") != FORMAT:
        raise ModelError(
            f"{path} has no {FORMAT!r} metadata; convert the original checkpoint with `vpr-dhe import-weights`"
        )
    if _digest(metadata, tensors) != metadata.get("sha256"):
        raise ModelError(f"{path} does not agree with its checksum; fetch or convert the file again")
    return _from_metadata(metadata, tensors, path)


def _from_metadata(metadata: dict, tensors: dict[str, Tensor], path: Path) -> ModelFile:
    try:
        preprocessing = dict(metadata["preprocessing"])
        for key in ("mean", "std", "order"):
            preprocessing[key] = tuple(preprocessing[key])
        known = replace(Preprocessing(**preprocessing), resize_mode="squeeze", order=Preprocessing.order)
        if Preprocessing(**preprocessing) != known:
            raise ModelError(f"{path} wants preprocessing that this version does not know ({preprocessing}); update it")
        return ModelFile(
            name=metadata["name"],
            architecture=Architecture(**metadata["architecture"]),
            preprocessing=known,
            licence=metadata["licence"],
            training_data=metadata["training_data"],
            tensors=tensors,
        )
    except (KeyError, TypeError) as error:
        raise ModelError(f"{path} has incomplete metadata ({error}); convert the original checkpoint again") from error
