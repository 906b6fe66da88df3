"""One network into one ONNX file, and the proof that it computes the same."""

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

# Of each output of each image or pair: the norm of the difference to what torch computes, by the norm of that.
MAX_RELATIVE_DIFFERENCE = 1e-4
_TRACED_BATCH = 2  # lengths of 0 and 1 would be taken for constants
_CHECKED_BATCHES = (1, 3)
_MIN_NORM = 1e-12
_METADATA_KEY = "vpr_dhe"


def write_onnx(network: ExportableNetwork, path: Path, facts: Mapping[str, Any]) -> ExportedPart:
    """Write an ONNX file, with weights beside it only where they are more than 2 GB, and check it.

    Args:
        network: on the CPU.
        path: of the file.
        facts: which JSON can hold; the file carries them as its metadata, with what goes in and comes out.

    Raises:
        ExportError: if torch cannot convert the network, or the file computes something else.
    """
    _convert(network, path, facts)
    difference = relative_difference(network, OnnxSession(path))
    if not difference <= MAX_RELATIVE_DIFFERENCE:  # also where it is not a number
        raise ExportError(
            f"{path.name} differs from the network by {difference:.1e} of what it computes, more than "
            f"{MAX_RELATIVE_DIFFERENCE:.0e}; nothing was exported; other versions of torch and onnxscript may do better"
        )
    # Sorted, the ONNX file comes before that of its weights.
    files = {file.name: sha256_of(file) for file in sorted(path.parent.glob(f"{path.name}*"))}
    return ExportedPart(files, network.inputs, network.outputs, difference)


@torch.inference_mode()
def relative_difference(network: ExportableNetwork, other: Callable[..., tuple[Tensor, ...]]) -> float:
    """How far what something else computes is from what the network does in torch, in batches of one and of three."""
    differences = [
        (found - expected).flatten(1).norm(dim=1) / expected.flatten(1).norm(dim=1).clamp(min=_MIN_NORM)
        for inputs in map(network.example, _CHECKED_BATCHES)
        for found, expected in zip(other(*inputs), network.module(*inputs), strict=True)
    ]
    return float(torch.cat(differences).max())


def _convert(network: ExportableNetwork, path: Path, facts: Mapping[str, Any]) -> None:
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "# The axis name")  # that some axes are of one length is intended
            program = torch.onnx.export(
                network.module.eval(),
                network.example(_TRACED_BATCH),
                dynamo=True,
                verbose=False,
                input_names=[fact.name for fact in network.inputs],
                output_names=[fact.name for fact in network.outputs],
                dynamic_shapes=_varying_lengths(network),
            )
    except torch.onnx.OnnxExporterError as error:
        reason = textwrap.shorten(str(error.__cause__ or error), 200, placeholder="...")
        raise ExportError(
            f"torch cannot convert the network to {path.name} ({reason}); nothing was exported"
        ) from error
    assert program is not None  # as with `dynamo`
    for node in program.model.graph:
        node.metadata_props.clear()  # paths and lines of the sources on this machine
    interface = {"inputs": [*map(asdict, network.inputs)], "outputs": [*map(asdict, network.outputs)]}
    program.model.metadata_props[_METADATA_KEY] = json.dumps({**facts, **interface})
    program.save(path)


def _varying_lengths(network: ExportableNetwork) -> tuple[dict[int, torch.export.Dim], ...]:
    """For each input, which of its axes vary; those of one name vary together."""
    words = {length for fact in network.inputs for length in fact.shape if isinstance(length, str)}
    lengths = {word: torch.export.Dim(word) for word in words}
    return tuple(
        {axis: lengths[length] for axis, length in enumerate(fact.shape) if isinstance(length, str)}
        for fact in network.inputs
    )
