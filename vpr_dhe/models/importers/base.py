"""Interface of importers, and reading and checking of published checkpoints.

Checkpoints are read with `torch.load(weights_only=True)`, which executes no code from the file, or as safetensors.
"""

import contextlib
import re
import textwrap
from argparse import Namespace
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple, Protocol, TypeAlias

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from vpr_dhe.errors import ModelError
from vpr_dhe.models import network_file
from vpr_dhe.models.model_file import FORMAT, ModelFile
from vpr_dhe.models.names import SUFFIX
from vpr_dhe.models.network_file import NetworkFile
from vpr_dhe.records import Preprocessing, Size

State: TypeAlias = dict[str, Tensor]
"""Tensors by name."""
Shapes: TypeAlias = dict[str, tuple[int, ...]]
"""Shapes of tensors by name."""

LIGHTNING = "state_dict"
"""Entry that holds the tensors in checkpoints of PyTorch Lightning."""
WRAPPERS = ("model_state_dict", LIGHTNING, "model")
"""Entries that hold tensors."""

_NUMPY_CORES = ("core", "_core")


class Importer(Protocol):
    """Module of a family of published checkpoints, in `FAMILIES` or `NETWORKS`.

    A module may have `WRAPPER`, which distinguishes the family from another one with the same tensors: the entry of a
    file that holds the tensors, or None if they are at the top level.
    """

    MAX_FILES: int
    """Maximum number of files of one model."""

    def convert(self, paths: Sequence[Path]) -> ModelFile | NetworkFile:
        """Convert the checkpoints of one model, or of one network of `NETWORKS`.

        Raises:
            ModelError: if a file cannot be read or is not of this family.
        """
        ...

    def recognises(self, shapes: Shapes) -> bool:
        """Whether the tensors of one checkpoint, named as by `read_state`, are those of this family."""
        ...


class Checkpoint(NamedTuple):
    """Content of a published file.

    Args:
        state: its tensors.
        wrapper: entry of the file that holds them, one of WRAPPERS; None if they are at the top level.
    """

    state: State
    wrapper: str | None


def read_state(path: Path) -> State:
    """Read the tensors of a checkpoint; see `read_checkpoint`."""
    return read_checkpoint(path).state


def read_checkpoint(path: Path) -> Checkpoint:
    """Read the state dictionary of a checkpoint, in float32 and without the prefix of DataParallel.

    Files whose names end in .safetensors are read as such, all others as files of `torch.save`. A dictionary of state
    dictionaries is flattened to names such as "netMatch.bn1.bias".

    Raises:
        ModelError: if the file is missing, unreadable, a model file already, or holds no state dictionary, or if the
            descriptors of its model depend on the other images of a batch.
    """
    if not path.is_file():
        raise ModelError(f"checkpoint {path} does not exist; give the path of the file that the authors publish")
    content = _read_safetensors(path) if path.suffix == SUFFIX else _read_torch(path)
    found = None
    for wrapper in WRAPPERS:
        if isinstance(content, Mapping) and wrapper in content:
            content, found = content[wrapper], wrapper
    content = _flattened(content)
    if not isinstance(content, Mapping) or not content or not _all_tensors(content):
        raise ModelError(f"{path} holds {_kind_of(content)}, not a state dictionary of tensors; give the weights file")
    # Copied, because tensors that share storage cannot be saved in a model file.
    state = {key.removeprefix("module."): value.to(torch.float32, copy=True) for key, value in content.items()}
    _refuse_cross_image(state, path)
    return Checkpoint(state, found)


def shapes_of(state: Mapping[str, Tensor]) -> Shapes:
    """Shapes of the tensors of a state."""
    return {key: tuple(value.shape) for key, value in state.items()}


def check_shapes(state: State, expected: Shapes, source: str) -> None:
    """Compare a state with the expected tensors; `source` names the files in the message.

    Raises:
        ModelError: if tensors are missing, unexpected or of other shapes.
    """
    wrong = [
        f"{key} of shape {tuple(state[key].shape)} instead of {shape}"
        for key, shape in expected.items()
        if key in state and tuple(state[key].shape) != shape
    ]
    missing = [key for key in expected if key not in state]
    unexpected = [key for key in state if key not in expected]
    faults = [("lacks", missing), ("has unexpected", unexpected), ("has", wrong)]
    found = "; ".join(f"{verb} {listed(keys)}" for verb, keys in faults if keys)
    if found:
        raise ModelError(f"{source} {found}; check that the file is complete and belongs to this family")


def without_counters(state: State) -> State:
    """Drop the batch counters of batch norms, which only training uses."""
    return {key: value for key, value in state.items() if not key.endswith("num_batches_tracked")}


def affine(name: str, rows: int, *columns: int) -> Shapes:
    """Shapes of weight and bias of a norm or, with `columns`, of a linear layer."""
    return {f"{name}.weight": (rows, *columns), f"{name}.bias": (rows,)}


def batch_norm(name: str, width: int) -> Shapes:
    """Shapes of a batch norm, without its counter."""
    return {f"{name}.{part}": (width,) for part in ("weight", "bias", "running_mean", "running_var")}


def renamed(state: State, prefix: str, new_prefix: str) -> State:
    """Select the tensors whose names start with `prefix`, and replace it by `new_prefix`."""
    return {new_prefix + key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}


def rows_of(state: State, name: str) -> int:
    """Size of the first axis of a tensor, for expected shapes; 0 if it is missing or a scalar."""
    return state[name].shape[0] if name in state and state[name].ndim else 0


def imagenet_preprocessing(
    size: Size, interpolation: Literal["bilinear", "bicubic"], *, antialias: bool
) -> Preprocessing:
    """Preprocessing with the channel statistics of ImageNet."""
    return Preprocessing(
        width=size.width,
        height=size.height,
        interpolation=interpolation,
        antialias=antialias,
        mean=(0.485, 0.456, 0.406),
        std=(0.229, 0.224, 0.225),
    )


def listed(keys: list[str]) -> str:
    """Names of at most three tensors and the number of the others, for messages."""
    rest = f" and {len(keys) - 3} more" if len(keys) > 3 else ""
    return ", ".join(keys[:3]) + rest


def _read_safetensors(path: Path) -> State:
    try:
        with safe_open(path, framework="pt") as file:
            if FORMAT.name in str(file.metadata()):
                raise ModelError(f"{path} is already a model file; use it by --model")
            if network_file.FORMAT.name in str(file.metadata()):
                raise ModelError(f"{path} is already a network file; use it by --weights")
            return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a mapping)
    except (SafetensorError, OSError, ValueError) as error:
        raise ModelError(f"{path} is not a readable safetensors file ({error}); download it again") from error


def _read_torch(path: Path) -> object:
    try:
        with _numpy_numbers_allowed():
            return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # on damaged files the unpickler raises errors of any kind
        if found := re.search(r"Unsupported global: GLOBAL (\S+)", str(error)):
            raise ModelError(
                f"{path} is not a readable PyTorch checkpoint: beside tensors it holds an object of {found[1]}, which "
                "is not loaded because that would execute code; save only its state dictionary"
            ) from error
        reason = textwrap.shorten(f"{type(error).__name__}: {error}", 160, placeholder="...")
        raise ModelError(f"{path} is not a readable PyTorch checkpoint ({reason}); download it again") from error


def _refuse_cross_image(state: State, path: Path) -> None:
    """Refuse models whose descriptors depend on the other images of the batch.

    CricaVPR, and SuperVLAD and SAGE with cross-image encoders, have a transformer encoder over the images of a batch in
    addition to a transformer as backbone.
    """
    if "backbone.patch_embed.proj.weight" in state or "backbone.model.patch_embed.proj.weight" in state:
        encoder = [key for key in state if key.startswith("encoder.layers.")]
        if encoder:
            raise ModelError(
                f"{path} holds an encoder over the images of a batch ({listed(encoder)}), as in CricaVPR: the "
                "descriptor of an image would depend on the other images, so it cannot be indexed; choose a model "
                "without a cross-image encoder"
            )


@contextlib.contextmanager
def _numpy_numbers_allowed() -> Iterator[None]:
    """Allow NumPy arrays and numbers, in which checkpoints keep recalls, and options of a command line."""
    functions: list[Any] = [np.empty(0).__reduce__()[0], np.float64(0).__reduce__()[0]]
    # Pickled as numpy.core by NumPy 1, as numpy._core by NumPy 2.
    named = [(one, f"numpy.{core}.multiarray.{one.__name__}") for one in functions for core in _NUMPY_CORES]
    numbers = [type(np.dtype(kind)) for kind in (np.float32, np.float64, np.int32, np.int64)]
    with torch.serialization.safe_globals([Namespace, np.ndarray, np.dtype, *numbers, *named]):
        yield


def _flattened(content: object) -> object:
    """Flatten a dictionary of state dictionaries; return anything else unchanged."""
    if not isinstance(content, Mapping) or not all(isinstance(part, Mapping) for part in content.values()):
        return content
    return {f"{name}.{key}": value for name, part in content.items() for key, value in part.items()}


def _all_tensors(content: Mapping) -> bool:
    return all(isinstance(key, str) and isinstance(value, Tensor) for key, value in content.items())


def _kind_of(content: object) -> str:
    if isinstance(content, Mapping):
        return f"a dictionary of {listed([str(key) for key in content])}" if content else "an empty dictionary"
    return f"a {type(content).__name__}"
