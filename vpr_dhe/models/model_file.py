"""The model file: weights with everything that is needed to use them, in one safetensors file."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from torch import Tensor

from vpr_dhe.errors import ModelError
from vpr_dhe.models.weights_file import WeightsFormat, read_weights, tensors_digest, write_weights
from vpr_dhe.records import Preprocessing, StrPath

FORMAT = WeightsFormat(
    "vpr-dhe model 1", "model file", "fetch it again, or convert the original checkpoint with `vpr-dhe import-weights`"
)


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

    def save(self, path: Path) -> None:
        """Write a model file.

        Raises:
            ModelError: if the name does not end in .safetensors, or its folder does not exist.
        """
        facts = {
            "name": self.name,
            "architecture": asdict(self.architecture),
            "preprocessing": asdict(self.preprocessing),
            "licence": self.licence,
            "training_data": self.training_data,
        }
        write_weights(path, FORMAT, facts, self.tensors)

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


def load_model(path: StrPath) -> ModelFile:
    """Read a model file and check its digest.

    Raises:
        ModelError: if the file is missing, is not a model file of this format, or its weights are damaged.
    """
    path = Path(path)
    return _from_metadata(*read_weights(path, FORMAT), path)


def known_preprocessing(stored: Mapping[str, Any], path: Path) -> Preprocessing:
    """Take preprocessing as a file states it.

    Raises:
        ModelError: if it is none that this version knows.
    """
    given = Preprocessing(**{**stored, **{key: tuple(stored[key]) for key in ("mean", "std", "order")}})
    known = replace(given, resize_mode="squeeze", order=Preprocessing.order)
    if given != known:
        raise ModelError(f"{path} wants preprocessing that this version does not know ({dict(stored)}); update it")
    return known


def _from_metadata(metadata: dict, tensors: dict[str, Tensor], path: Path) -> ModelFile:
    try:
        return ModelFile(
            name=metadata["name"],
            architecture=Architecture(**metadata["architecture"]),
            preprocessing=known_preprocessing(metadata["preprocessing"], path),
            licence=metadata["licence"],
            training_data=metadata["training_data"],
            tensors=tensors,
        )
    except (KeyError, TypeError) as error:
        raise ModelError(f"{path} has incomplete metadata ({error}); convert the original checkpoint again") from error
