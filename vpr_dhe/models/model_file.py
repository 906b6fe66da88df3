"""Model files: weights, architecture and preprocessing in one safetensors file."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from torch import Tensor

from vpr_dhe.errors import ModelError
from vpr_dhe.models.weights_file import WeightsFormat, read_weights, tensors_digest, write_weights
from vpr_dhe.records import RESIZE_8_BIT, RESIZE_FLOATS, RESIZE_MODES, Preprocessing, StrPath

FORMAT = WeightsFormat(
    "vpr-dhe model 1", "model file", "fetch it again, or convert the original checkpoint with `vpr-dhe import-weights`"
)


@dataclass(frozen=True)
class Architecture:
    """Names of the parts of a network, and arguments of their constructors.

    Args:
        backbone: see `backbone_names`.
        aggregator: see `aggregator_names`.
        blocks: number of blocks, or stages, of the backbone that are kept; None keeps all.
        head: homography network in the same file, if any.
        unit_norm: whether global descriptors are L2-normalised at the index boundary.
        tolerance_cells: largest reprojection error of an inlier, in cells of the local map (the DHE paper: 48 px for
            cells of 16 px).
        local_head: head that computes local maps from tokens; None if L2-normalised tokens are the local map.
    """

    backbone: str
    aggregator: str
    blocks: int | None = None
    head: str | None = None
    unit_norm: bool = True
    tolerance_cells: float = 3.0
    local_head: str | None = None

    def as_stored(self) -> dict[str, Any]:
        """Fields as stored in files and hashed in fingerprints; newer fields are omitted if they have their default."""
        fields = asdict(self)
        if self.local_head is None:
            del fields["local_head"]
        return fields


@dataclass(frozen=True)
class Origin:
    """Checkpoints that a model was converted from, before any training in this package.

    Args:
        files: names and SHA-256 of the files.
        url: URL that they were published at; None if it is unknown.
    """

    files: Mapping[str, str]
    url: str | None = None


@dataclass(frozen=True)
class ModelFile:
    """Model: weights by name (`backbone.*`, `aggregator.*`, `local_head.*`, `head.*`) and metadata.

    `published` marks weights published with a paper, which give the published results by default: an index neither
    adapts to its map nor ranks by evidence unless told to. `origin` is set for converted checkpoints; it is not part of
    the fingerprint.
    """

    name: str
    architecture: Architecture
    preprocessing: Preprocessing
    licence: str
    training_data: str
    tensors: Mapping[str, Tensor] = field(repr=False)
    published: bool = False
    origin: Origin | None = None

    def part(self, prefix: str) -> dict[str, Tensor]:
        """State of one part, without its prefix."""
        start = f"{prefix}."
        return {name.removeprefix(start): value for name, value in self.tensors.items() if name.startswith(start)}

    def without_head(self) -> "ModelFile":
        """Copy of the model without its head."""
        return replace(self, architecture=replace(self.architecture, head=None), tensors=self._without("head"))

    def without_local_head(self) -> "ModelFile":
        """Copy of the model whose local maps are L2-normalised tokens."""
        architecture = replace(self.architecture, local_head=None)
        return replace(self, architecture=architecture, tensors=self._without("local_head"))

    def without_backbone(self) -> "ModelFile":
        """Copy of the model without the tensors of its backbone."""
        return replace(self, tensors=self._without("backbone"))

    def with_local_head(self, local_head: str, state: Mapping[str, Tensor]) -> "ModelFile":
        """Copy of the model with a local head and without a homography head, which was trained for other local maps."""
        extractor = self.without_head().without_local_head()
        architecture = replace(extractor.architecture, local_head=local_head)
        tensors = {**extractor.tensors, **_named("local_head", state)}
        return replace(extractor, architecture=architecture, tensors=tensors, published=False)

    def with_head(self, head: str, state: Mapping[str, Tensor]) -> "ModelFile":
        """Copy of the model with a homography head, replacing any other."""
        tensors = {**self._without("head"), **_named("head", state)}
        return replace(self, architecture=replace(self.architecture, head=head), tensors=tensors)

    def _without(self, prefix: str) -> dict[str, Tensor]:
        """Tensors of all parts but one."""
        return {name: value for name, value in self.tensors.items() if not name.startswith(f"{prefix}.")}

    def save(self, path: StrPath) -> None:
        """Write the model to a file.

        Raises:
            ModelError: if the name does not end in .safetensors, or its folder does not exist.
        """
        path = Path(path)
        metadata = {
            "name": self.name,
            "architecture": self.architecture.as_stored(),
            "preprocessing": asdict(self.preprocessing),
            "licence": self.licence,
            "training_data": self.training_data,
            # Omitted otherwise, so that files of other models do not change.
            **({"published": True} if self.published else {}),
            **({} if self.origin is None else {"origin": asdict(self.origin)}),
        }
        write_weights(path, FORMAT, metadata, self.tensors)

    def in_half_precision(self) -> "ModelFile":
        """Copy of the model with weights stored in half precision; it still computes in single precision."""
        return replace(self, tensors={name: value.half() for name, value in self.tensors.items()})

    @property
    def extractor_fingerprint(self) -> str:
        """SHA-256 of everything that determines the features: extractor weights, architecture and preprocessing."""
        architecture = replace(self.architecture, head=None, tolerance_cells=0.0).as_stored()
        settings = json.dumps([architecture, asdict(self.preprocessing)], sort_keys=True)
        return hashlib.sha256(settings.encode() + tensors_digest(self._without("head")).encode()).hexdigest()


def _named(prefix: str, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Copy of the state of a part, with the names of a model file."""
    return {f"{prefix}.{name}": value.detach().cpu().clone() for name, value in state.items()}


def load_model(path: StrPath) -> ModelFile:
    """Read a model file and check its digest.

    Raises:
        ModelError: if the file is missing, damaged, or not a model file of this format.
    """
    path = Path(path)
    return _from_metadata(*read_weights(path, FORMAT), path)


def known_preprocessing(stored: Mapping[str, Any], path: Path) -> Preprocessing:
    """Parse the preprocessing of a file.

    Raises:
        ModelError: if this version does not support it.
    """
    given = Preprocessing(**{**stored, **{key: tuple(stored[key]) for key in ("mean", "std", "order")}})
    if given.resize_mode not in RESIZE_MODES or given.order not in (RESIZE_FLOATS, RESIZE_8_BIT):
        raise ModelError(f"{path} needs preprocessing that this version does not support ({dict(stored)}); update it")
    return given


def _from_metadata(metadata: dict, tensors: dict[str, Tensor], path: Path) -> ModelFile:
    try:
        return ModelFile(
            name=metadata["name"],
            architecture=Architecture(**metadata["architecture"]),
            preprocessing=known_preprocessing(metadata["preprocessing"], path),
            licence=metadata["licence"],
            training_data=metadata["training_data"],
            tensors=tensors,
            published=metadata.get("published", False),
            origin=Origin(**metadata["origin"]) if "origin" in metadata else None,
        )
    except (KeyError, TypeError) as error:
        raise ModelError(f"{path} has incomplete metadata ({error}); convert the original checkpoint again") from error
