"""Conversion of networks to ONNX, with or without weights, and comparison of the outputs."""

import json
import logging
import textwrap
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from vpr_dhe.errors import ExportError
from vpr_dhe.models.exported_model import ExportedPart, TensorInfo, sha256_of
from vpr_dhe.models.onnx_session import OnnxSession

# Norm of the difference from torch's output, relative to the norm of that output, per output and image or pair.
MAX_RELATIVE_DIFFERENCE = 1e-4
_TRACED_BATCH = 2  # lengths of 0 and 1 would become constants
_CHECKED_BATCHES = (1, 3)
_MIN_NORM = 1e-12
_METADATA_KEY = "vpr_dhe"
# Constants of up to this size are computed at conversion, if they do not depend on weights.
_MAX_CONSTANT_BYTES = 1 << 20


@dataclass(frozen=True)
class ExportableNetwork:
    """Network whose inputs and outputs are tensors.

    `example` makes the inputs of a batch of a given size, the same on each call.
    """

    module: nn.Module
    inputs: tuple[TensorInfo, ...]
    outputs: tuple[TensorInfo, ...]
    example: Callable[[int], tuple[Tensor, ...]]


@dataclass(frozen=True)
class WeightlessOnnx:
    """Content of an ONNX file without weights, and the names of its weights."""

    content: bytes
    weights: tuple[str, ...]


def write_onnx(network: ExportableNetwork, path: Path, metadata: Mapping[str, Any]) -> ExportedPart:
    """Write an ONNX file and check its outputs; weights of more than 2 GB go to a second file.

    Args:
        network: network on the CPU.
        path: path of the file.
        metadata: metadata to store in the file, as JSON, beside the descriptions of inputs and outputs.

    Raises:
        ExportError: if torch cannot convert the network, or the outputs differ.
    """
    _convert(network, path, metadata)
    difference = relative_difference(network, OnnxSession(path))
    _require_same(path.name, difference)
    # Sorted, the ONNX file comes before its weights.
    files = {file.name: sha256_of(file) for file in sorted(path.parent.glob(f"{path.name}*"))}
    return ExportedPart(files, network.inputs, network.outputs, difference)


@torch.inference_mode()
def relative_difference(network: ExportableNetwork, other: Callable[..., tuple[Tensor, ...]]) -> float:
    """Largest relative difference between the network's outputs and another function's, in batches of one and three."""
    differences = [
        (found - expected).flatten(1).norm(dim=1) / expected.flatten(1).norm(dim=1).clamp(min=_MIN_NORM)
        for inputs in map(network.example, _CHECKED_BATCHES)
        for found, expected in zip(other(*inputs), network.module(*inputs), strict=True)
    ]
    return float(torch.cat(differences).max())


def random_values(*shape: int) -> Tensor:
    """Normally distributed numbers for example inputs, the same on each call."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


def convert_without_weights(network: ExportableNetwork) -> WeightlessOnnx:
    """Convert a network to ONNX without its weights, for all networks that differ only in weights.

    Raises:
        ExportError: if torch cannot convert the network, or the outputs differ.
    """
    program = _export(network, optimize=False)
    state = network.module.state_dict()
    names = _leave_out_weights(program.model, state)
    _remove_paths(program.model)
    content = _serialised(program.model)
    session = OnnxSession(content, weights={name: state[name].float() for name in names})
    _require_same("the converted network", relative_difference(network, session))
    return WeightlessOnnx(content, names)


def _convert(network: ExportableNetwork, path: Path, metadata: Mapping[str, Any]) -> None:
    program = _export(network, path.name)
    _remove_paths(program.model)
    interface = {"inputs": [*map(asdict, network.inputs)], "outputs": [*map(asdict, network.outputs)]}
    program.model.metadata_props[_METADATA_KEY] = json.dumps({**metadata, **interface})
    program.save(path)


def _export(network: ExportableNetwork, name: str = "ONNX", *, optimize: bool = True) -> torch.onnx.ONNXProgram:
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "# The axis name")  # axes that share a length are intended
            program = torch.onnx.export(
                network.module.eval(),
                network.example(_TRACED_BATCH),
                dynamo=True,
                verbose=False,
                optimize=optimize,
                input_names=[tensor.name for tensor in network.inputs],
                output_names=[tensor.name for tensor in network.outputs],
                dynamic_shapes=_varying_lengths(network),
            )
    except torch.onnx.OnnxExporterError as error:
        reason = textwrap.shorten(str(error.__cause__ or error), 200, placeholder="...")
        raise ExportError(f"torch cannot convert the network to {name} ({reason}); nothing was exported") from error
    assert program is not None  # always, with `dynamo`
    return program


def _leave_out_weights(model: Any, state: Mapping[str, Tensor]) -> tuple[str, ...]:
    """Simplify a graph without folding weights, and turn the weights into external data."""
    import onnx_ir
    from onnxscript import optimizer

    weights = {name: value for name, value in model.graph.initializers.items() if name in state}
    external = {
        name: onnx_ir.ExternalTensor("weights", 0, value.const_value.nbytes, value.dtype, shape=value.shape, name=name)
        for name, value in weights.items()
    }
    for value in weights.values():
        value.const_value = None  # the optimiser folds constants with known values
    with _quiet("onnx_ir"), _quiet("onnxscript"):
        optimizer.optimize(model, output_size_limit=_MAX_CONSTANT_BYTES)
    for name, value in model.graph.initializers.items():
        if name in external:
            value.const_value = external[name]
    return tuple(name for name in external if name in model.graph.initializers)


def _remove_paths(model: Any) -> None:
    """Remove the paths of source files on this machine."""
    for node in model.graph:
        node.metadata_props.clear()


def _serialised(model: Any) -> bytes:
    import onnx_ir

    return onnx_ir.to_proto(model).SerializeToString()


@contextmanager
def _quiet(logger_name: str) -> Iterator[None]:
    """Silence a library's warnings about weights without values."""
    logger = logging.getLogger(logger_name)
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(before)


def _require_same(name: str, difference: float) -> None:
    if not difference <= MAX_RELATIVE_DIFFERENCE:  # also for NaN
        raise ExportError(
            f"outputs of {name} differ from the network's by {difference:.1e} of their norm, more than "
            f"{MAX_RELATIVE_DIFFERENCE:.0e}; nothing was exported; try other versions of torch and onnxscript"
        )


def _varying_lengths(network: ExportableNetwork) -> tuple[dict[int, torch.export.Dim], ...]:
    """Dynamic axes of each input; axes with the same name have the same length."""
    words = {length for tensor in network.inputs for length in tensor.shape if isinstance(length, str)}
    lengths = {word: torch.export.Dim(word) for word in words}
    return tuple(
        {axis: lengths[length] for axis, length in enumerate(tensor.shape) if isinstance(length, str)}
        for tensor in network.inputs
    )
