"""Reading and checking of published checkpoints.

Checkpoints are read with `torch.load(weights_only=True)`, which executes no code from the file.
"""

import contextlib
import textwrap
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np
import torch
from torch import Tensor

from vpr_dhe.errors import ModelError
from vpr_dhe.records import Preprocessing, Size

State: TypeAlias = dict[str, Tensor]
"""Tensors by name."""
Shapes: TypeAlias = dict[str, tuple[int, ...]]
"""Expected shapes of tensors by name."""

_NUMPY_CORES = ("core", "_core")


def read_state(path: Path) -> State:
    """Read the state dictionary of a checkpoint, in float32 and without the prefix of DataParallel.

    Raises:
        ModelError: if the file is missing, unreadable, or holds no state dictionary.
    """
    if not path.is_file():
        raise ModelError(f"checkpoint {path} does not exist; give the path of the file that the authors publish")
    try:
        with _numpy_numbers_allowed():
            content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # on damaged files the unpickler raises errors of any kind
        reason = textwrap.shorten(f"{type(error).__name__}: {error}", 160, placeholder="...")
        raise ModelError(f"{path} is not a readable PyTorch checkpoint ({reason}); download it again") from error
    for wrapper in ("model_state_dict", "state_dict"):
        if isinstance(content, Mapping) and wrapper in content:
            content = content[wrapper]
    if not isinstance(content, Mapping) or not content or not _all_tensors(content):
        raise ModelError(f"{path} holds {_kind_of(content)}, not a state dictionary of tensors; give the weights file")
    # Copied, because tensors that share storage cannot be saved in a model file.
    return {key.removeprefix("module."): value.to(torch.float32, copy=True) for key, value in content.items()}


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


def affine(name: str, rows: int, *columns: int) -> Shapes:
    """Shapes of weight and bias of a norm or, with columns, of a linear layer."""
    return {f"{name}.weight": (rows, *columns), f"{name}.bias": (rows,)}


def imagenet_preprocessing(
    size: Size, interpolation: Literal["bilinear", "bicubic"], *, antialias: bool, resize_mode: str = "squeeze"
) -> Preprocessing:
    """Preprocessing with the channel statistics of ImageNet."""
    return Preprocessing(
        width=size.width,
        height=size.height,
        interpolation=interpolation,
        antialias=antialias,
        mean=(0.485, 0.456, 0.406),
        std=(0.229, 0.224, 0.225),
        resize_mode=resize_mode,
    )


def listed(keys: list[str]) -> str:
    """Names of at most three tensors and the number of the others, for messages."""
    rest = f" and {len(keys) - 3} more" if len(keys) > 3 else ""
    return ", ".join(keys[:3]) + rest


@contextlib.contextmanager
def _numpy_numbers_allowed() -> Iterator[None]:
    """Allow NumPy arrays and numbers, in which the benchmark's checkpoints keep recalls."""
    functions: list[Any] = [np.empty(0).__reduce__()[0], np.float64(0).__reduce__()[0]]
    # Pickled as numpy.core by NumPy 1, as numpy._core by NumPy 2.
    named = [(one, f"numpy.{core}.multiarray.{one.__name__}") for one in functions for core in _NUMPY_CORES]
    numbers = [type(np.dtype(kind)) for kind in (np.float32, np.float64, np.int32, np.int64)]
    with torch.serialization.safe_globals([np.ndarray, np.dtype, *numbers, *named]):
        yield


def _all_tensors(content: Mapping) -> bool:
    return all(isinstance(key, str) and isinstance(value, Tensor) for key, value in content.items())


def _kind_of(content: object) -> str:
    if isinstance(content, Mapping):
        return f"a dictionary of {listed([str(key) for key in content])}" if content else "an empty dictionary"
    return f"a {type(content).__name__}"
