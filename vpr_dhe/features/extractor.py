"""Loading of extractors by model name."""

from pathlib import Path

import torch

from vpr_dhe.errors import BadInputError, ModelError
from vpr_dhe.features.base import Extractor
from vpr_dhe.features.onnx_extractor import OnnxExtractor
from vpr_dhe.features.onnx_graphs import graph_for
from vpr_dhe.models.catalogue import is_export, open_model
from vpr_dhe.models.exported_model import load_exported
from vpr_dhe.models.model_file import ModelFile
from vpr_dhe.models.names import SIFT_VLAD, SUFFIX, TIMM_CNN_PREFIX, TIMM_PREFIX
from vpr_dhe.records import Size
from vpr_dhe.runtime.choices import AUTO, FP32, ExtractorPrecision, Runtime, require_choice

_DOWNLOADED = TIMM_PREFIX, TIMM_CNN_PREFIX
"""Prefixes of models that timm downloads from its hub."""


def load_extractor(
    name: str,
    device: str = "cpu",
    *,
    precision: ExtractorPrecision = FP32,
    compiled: bool = False,
    runtime: Runtime = AUTO,
) -> Extractor:
    """Load an extractor by the name of its model.

    Args:
        name: a bundled model; the path of a model file; `timm:NAME` or `timm-cnn:NAME`, with `@SIDE` for the input side
            in pixels, rounded down to whole patches; or a folder written by `vpr-dhe export`.
        device: a torch device.
        precision: precision of matrix products; `bf16` takes about half the time in torch on devices with bf16
            instructions. Features of both precisions can be compared.
        compiled: whether to compile the network, which needs a C++ compiler and about a minute.
        runtime: `torch`; `onnx` (ONNX Runtime), for exports, and for networks on a CPU in single precision; or `auto`:
            ONNX Runtime where possible (see `graph_for`), else torch. Features of both runtimes can be compared.

    Raises:
        BadInputError: if precision or runtime are unknown, or the runtime cannot run the model in this way.
        ModelError: if the model is unknown, cannot be downloaded or compiled, its file does not fit its architecture,
            or it is not a network in torch and `precision` or `compiled` is set.
        ExportError: with `runtime="onnx"`, if the network cannot be converted.
        MissingExtraError: with `runtime="onnx"`, if packages that convert the network are not installed.
    """
    require_choice(precision, ExtractorPrecision, "precision")
    require_choice(runtime, Runtime, "runtime")
    if is_export(name):
        _refuse_torch(name, runtime)
        _require_defaults(name, precision, compiled)
        return OnnxExtractor.of_export(load_exported(Path(name), device))
    prefix = next((prefix for prefix in _DOWNLOADED if name.startswith(prefix)), None)
    model = open_model(name) if prefix is None else _download(name, prefix)
    # Absolute, because an index stores it.
    reference = str(Path(name).resolve()) if name.endswith(SUFFIX) else name
    if model.architecture.backbone == SIFT_VLAD:
        _require_defaults(name, precision, compiled)
        _refuse_onnx(name, runtime, "it has no network; leave out --runtime")
        from vpr_dhe.features.sift_vlad import SiftVladExtractor

        return SiftVladExtractor(model, reference)
    if torch.device(device).type != "cpu" or precision != FP32 or compiled:
        remedy = f"leave these out (--device cpu), or run `vpr-dhe export {name} --out FOLDER`, and give --model FOLDER"
        _refuse_onnx(name, runtime, f"another device, --precision or --compile was requested; {remedy}")
    elif runtime != "torch":
        return extractor_of(model, reference, onnx_required=runtime == "onnx")
    return _in_torch(model, reference, device, precision, compiled=compiled)


def extractor_of(model: ModelFile, name: str, device: str = "cpu", *, onnx_required: bool = False) -> Extractor:
    """Make the extractor of a model in single precision: by ONNX Runtime on a CPU where possible, else by torch.

    Raises:
        ModelError: if the weights do not fit the architecture.
        ExportError: with `onnx_required`, if the network cannot be converted.
        MissingExtraError: with `onnx_required`, if packages that convert the network are not installed.
    """
    graph = graph_for(model, required=onnx_required) if torch.device(device).type == "cpu" else None
    if graph is None:
        return _in_torch(model, name, device)
    return OnnxExtractor.of_model(model, name, graph)


def _in_torch(
    model: ModelFile, name: str, device: str, precision: ExtractorPrecision = FP32, *, compiled: bool = False
) -> Extractor:
    # Imported here because it imports all architectures, which ONNX Runtime does not need.
    from vpr_dhe.features.neural_extractor import NeuralExtractor

    return NeuralExtractor(model, name, torch.device(device), precision, compiled=compiled)


def _refuse_onnx(name: str, runtime: Runtime, reason: str) -> None:
    if runtime == "onnx":
        raise BadInputError(f"--runtime onnx supports neural networks only, on a CPU in fp32, not {name}: {reason}")


def _refuse_torch(name: str, runtime: Runtime) -> None:
    if runtime == "torch":
        raise BadInputError(
            f"--runtime torch cannot run {name}, which is an export to ONNX; give the model that it was exported from "
            "by --model"
        )


def _require_defaults(name: str, precision: ExtractorPrecision, compiled: bool) -> None:
    if precision != FP32 or compiled:
        raise ModelError(
            f"{name} is not a network in torch, so it has no precision to choose and cannot be compiled; leave out "
            "--precision and --compile"
        )


def _download(name: str, prefix: str) -> ModelFile:
    architecture, _, side = name.removeprefix(prefix).partition("@")
    if side and not side.isdecimal():
        raise ModelError(f"{name!r} asks for an input side of {side!r}; expected pixels, such as {prefix}NAME@322")
    from vpr_dhe.features.backbones.timm_cnn import timm_cnn_model_file
    from vpr_dhe.features.backbones.timm_vit import timm_model_file

    download = timm_model_file if prefix == TIMM_PREFIX else timm_cnn_model_file
    return download(architecture, size=Size(int(side), int(side)) if side else None)
