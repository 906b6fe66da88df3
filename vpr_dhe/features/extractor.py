"""Loading of extractors by model name, and the extractor composed of a backbone and an aggregator."""

import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import TypeVar

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from vpr_dhe.errors import BadInputError, ModelError
from vpr_dhe.features.aggregators import build_aggregator
from vpr_dhe.features.backbones import build_backbone
from vpr_dhe.features.backbones.timm_cnn import timm_cnn_model_file
from vpr_dhe.features.backbones.timm_vit import timm_model_file
from vpr_dhe.features.base import (
    Aggregator,
    Backbone,
    DenseFeatures,
    DenseTokens,
    Extractor,
    ExtractorSpec,
)
from vpr_dhe.features.onnx_extractor import OnnxExtractor
from vpr_dhe.features.sift_vlad import SiftVladExtractor
from vpr_dhe.images import to_network_input
from vpr_dhe.models.catalogue import is_export, open_model
from vpr_dhe.models.exported_model import load_exported
from vpr_dhe.models.model_file import ModelFile
from vpr_dhe.models.names import SIFT_VLAD, SUFFIX, TIMM_CNN_PREFIX, TIMM_PREFIX
from vpr_dhe.records import Features, Image, Size
from vpr_dhe.runtime.choices import AUTO, ExtractorPrecision, Runtime, require_choice
from vpr_dhe.runtime.threads import in_parallel, split_evenly

Item = TypeVar("Item")

# Models that timm downloads from its hub, by prefix.
_DOWNLOADED = {TIMM_PREFIX: timm_model_file, TIMM_CNN_PREFIX: timm_cnn_model_file}


def load_extractor(
    name: str,
    device: str = "cpu",
    *,
    precision: ExtractorPrecision = "fp32",
    compiled: bool = False,
    runtime: Runtime = AUTO,
) -> Extractor:
    """Load an extractor by the name of its model.

    Args:
        name: a bundled model; the path of a model file; `timm:NAME` or `timm-cnn:NAME`, with `@SIDE` for the input side
            in pixels, rounded down to whole patches; or a folder written by `vpr-dhe export`, run by ONNX Runtime.
        device: a torch device.
        precision: precision of matrix products; `bf16` takes about half the time if the device has instructions for
            it. Features of both precisions can be compared.
        compiled: whether to compile the network, which needs a C++ compiler and about a minute.
        runtime: `torch` or `onnx` refuses models of the other; `auto` takes both.

    Raises:
        BadInputError: if precision or runtime are unknown, or the model is not for the runtime.
        ModelError: if the model is unknown, cannot be downloaded or compiled, its file does not fit its architecture,
            or it is not a network in torch and `precision` or `compiled` is set.
        MissingExtraError: if ONNX Runtime is needed and not installed.
    """
    require_choice(precision, ExtractorPrecision, "precision")
    require_choice(runtime, Runtime, "runtime")
    _require_runtime(name, runtime)
    if is_export(name):
        _require_defaults(name, precision, compiled)
        return OnnxExtractor(load_exported(Path(name), device))
    prefix = next((prefix for prefix in _DOWNLOADED if name.startswith(prefix)), None)
    model = open_model(name) if prefix is None else _download(name, prefix)
    # Absolute, because an index stores it.
    reference = str(Path(name).resolve()) if name.endswith(SUFFIX) else name
    if model.architecture.backbone == SIFT_VLAD:
        _require_defaults(name, precision, compiled)
        return SiftVladExtractor(model, reference)
    return NeuralExtractor(model, reference, torch.device(device), precision, compiled=compiled)


def _require_runtime(name: str, runtime: Runtime) -> None:
    exported = is_export(name)
    if runtime == "onnx" and not exported:
        raise BadInputError(
            f"--runtime onnx runs what `vpr-dhe export` wrote, and {name} is no such folder; run "
            f"`vpr-dhe export {name} --out FOLDER`, and give --model FOLDER"
        )
    if runtime == "torch" and exported:
        raise BadInputError(
            f"--runtime torch was asked for, and {name} is an export to ONNX; give the model that it was made of by "
            "--model"
        )


def _require_defaults(name: str, precision: ExtractorPrecision, compiled: bool) -> None:
    if precision != "fp32" or compiled:
        raise ModelError(
            f"{name} is not a network in torch, so it has no precision to choose and cannot be compiled; leave out "
            "--precision and --compile"
        )


def _download(name: str, prefix: str) -> ModelFile:
    architecture, _, side = name.removeprefix(prefix).partition("@")
    if side and not side.isdecimal():
        raise ModelError(f"{name!r} asks for an input side of {side!r}; expected pixels, such as {prefix}NAME@322")
    return _DOWNLOADED[prefix](architecture, size=Size(int(side), int(side)) if side else None)


class ExtractorNetwork(nn.Module):
    """Backbone and aggregator: L2-normalised tokens are the local map, aggregated tokens the global descriptor."""

    def __init__(self, backbone: Backbone, aggregator: Aggregator) -> None:
        super().__init__()
        self.backbone, self.aggregator = backbone, aggregator

    def forward(self, images: Float[Tensor, "batch 3 height width"]) -> DenseFeatures:
        """Extract features of preprocessed images; global descriptors are not normalised."""
        tokens = self.backbone(images)
        return DenseFeatures(self.aggregator(tokens), functional.normalize(tokens.patches, dim=-1), tokens.grid)


class _InBfloat16(Backbone):
    """Backbone that multiplies in bfloat16 and returns tokens in single precision."""

    def __init__(self, backbone: Backbone) -> None:
        super().__init__()
        self.backbone, self.dimension = backbone, backbone.dimension

    def forward(self, images: Float[Tensor, "batch 3 height width"]) -> DenseTokens:
        with torch.autocast(images.device.type, torch.bfloat16):
            tokens = self.backbone(images)
        class_token = None if tokens.class_token is None else tokens.class_token.float()
        return DenseTokens(tokens.patches.float(), tokens.grid, class_token)


class NeuralExtractor(Extractor):
    """Extractor with a network in torch; see `load_extractor` for `precision` and `compiled`."""

    def __init__(
        self,
        model: ModelFile,
        name: str,
        device: torch.device,
        precision: ExtractorPrecision = "fp32",
        *,
        compiled: bool = False,
    ) -> None:
        architecture, self._preprocessing = model.architecture, model.preprocessing
        backbone = build_backbone(
            architecture.backbone, blocks=architecture.blocks, input_size=model.preprocessing.size
        )
        aggregator = build_aggregator(architecture.aggregator, backbone.dimension, model.part("aggregator"))
        _load_weights(backbone, model, "backbone")
        _load_weights(aggregator, model, "aggregator")
        self._layout = torch.channels_last if backbone.convolutional else torch.contiguous_format
        backbone = _InBfloat16(backbone) if precision == "bf16" else backbone
        network = ExtractorNetwork(backbone, aggregator).eval().to(device)
        self.network = network.to(memory_format=self._layout)
        self._run = torch.compile(self.network) if compiled else self.network
        self.device = device
        self.model_file = model
        self.spec = self._measured_spec(model, name)

    def _measured_spec(self, model: ModelFile, name: str) -> ExtractorSpec:
        """Determine dimensions and grid by a black image."""
        size = model.preprocessing.size
        try:
            features = self.extract_batch(torch.zeros(1, 3, size.height, size.width, device=self.device))
        except RuntimeError as error:
            if self._run is self.network:
                raise
            reason = textwrap.shorten(str(error), 120, placeholder="...")
            raise ModelError(
                f"torch cannot compile {name} here ({reason}); install a C++ compiler, or leave out --compile"
            ) from error
        return ExtractorSpec(
            model=name,
            fingerprint=model.extractor_fingerprint,
            dimension=features.vectors.shape[1],
            local_dimension=features.local_maps.shape[2],
            grid=features.grid,
            input_size=size,
            unit_norm=model.architecture.unit_norm,
            tolerance_cells=model.architecture.tolerance_cells,
        )

    def extract(self, images: Sequence[Image]) -> list[Features]:
        """Extract the features of each image; they stay on the extractor's device."""
        extracted = in_parallel(self._extract_part, self.split(images))
        return [features for part in extracted for features in part]

    def split(self, images: Sequence[Item]) -> list[Sequence[Item]]:
        """Split a batch into one part per core, because a part fits the caches of a core, and the batch does not.

        There is only one part on a GPU, for a compiled network, and for fewer images than cores.
        """
        threads = torch.get_num_threads()
        whole = self.device.type != "cpu" or self._run is not self.network or len(images) < threads
        return [images] if whole else split_evenly(images, threads)

    def _extract_part(self, images: Sequence[Image]) -> list[Features]:
        batch = to_network_input(images, self._preprocessing, self.device)
        return self.extract_batch(batch).features(images, self._preprocessing.size)

    @torch.inference_mode()
    def extract_batch(self, batch: Float[Tensor, "batch 3 height width"]) -> DenseFeatures:
        """Extract features of preprocessed images."""
        return self._run(batch.to(memory_format=self._layout))


def _load_weights(part: nn.Module, model: ModelFile, prefix: str) -> None:
    """Load the weights of one part strictly."""
    try:
        part.load_state_dict(model.part(prefix), strict=True)
    except RuntimeError as error:
        reason = " ".join(str(error).split())
        raise ModelError(f"model {model.name!r} does not fit its architecture: {reason}; convert it again") from error
