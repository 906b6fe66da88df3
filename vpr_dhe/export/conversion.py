"""Conversion of a network to an ONNX file, and comparison of their outputs."""

import json
import textwrap
import warnings
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from vpr_dhe.errors import ExportError
from vpr_dhe.export.networks import ExportableNetwork
from vpr_dhe.models.exported_model import ExportedPart, sha256_of
from vpr_dhe.models.onnx_session import OnnxSession

# Norm of the difference to torch's output, relative to the norm of that output, per output and image or pair.
MAX_RELATIVE_DIFFERENCE = 1e-4
_TRACED_BATCH = 2  # lengths of 0 and 1 would become constants
_CHECKED_BATCHES = (1, 3)
_MIN_NORM = 1e-12
_METADATA_KEY = "vpr_dhe"


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
    if not difference <= MAX_RELATIVE_DIFFERENCE:  # also where it is not a number
        raise ExportError(
            f"outputs of {path.name} differ from the network's by {difference:.1e} of their norm, more than "
            f"{MAX_RELATIVE_DIFFERENCE:.0e}; nothing was exported; try other versions of torch and onnxscript"
        )
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


def _convert(network: ExportableNetwork, path: Path, metadata: Mapping[str, Any]) -> None:
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "# The axis name")  # axes that share a length are intended
            program = torch.onnx.export(
                network.module.eval(),
                network.example(_TRACED_BATCH),
                dynamo=True,
                verbose=False,
                input_names=[tensor.name for tensor in network.inputs],
                output_names=[tensor.name for tensor in network.outputs],
                dynamic_shapes=_varying_lengths(network),
            )
    except torch.onnx.OnnxExporterError as error:
        reason = textwrap.shorten(str(error.__cause__ or error), 200, placeholder="...")
        raise ExportError(
            f"torch cannot convert the network to {path.name} ({reason}); nothing was exported"
        ) from error
    assert program is not None  # always, with `dynamo`
    for node in program.model.graph:
        node.metadata_props.clear()  # they hold paths of source files on this machine
    interface = {"inputs": [*map(asdict, network.inputs)], "outputs": [*map(asdict, network.outputs)]}
    program.model.metadata_props[_METADATA_KEY] = json.dumps({**metadata, **interface})
    program.save(path)


def _varying_lengths(network: ExportableNetwork) -> tuple[dict[int, torch.export.Dim], ...]:
    """Axes of each input whose length varies; axes of the same name vary together."""
    words = {length for tensor in network.inputs for length in tensor.shape if isinstance(length, str)}
    lengths = {word: torch.export.Dim(word) for word in words}
    return tuple(
        {axis: lengths[length] for axis, length in enumerate(tensor.shape) if isinstance(length, str)}
        for tensor in network.inputs
    )
