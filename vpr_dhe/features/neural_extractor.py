"""Extractor composed of a backbone, an aggregator and a local head, run by torch."""

import textwrap
from collections.abc import Sequence
from contextlib import nullcontext
from typing import TypeVar

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from vpr_dhe.errors import ModelError
from vpr_dhe.features.aggregators import build_aggregator
from vpr_dhe.features.backbones import build_backbone
from vpr_dhe.features.base import (
    Aggregator,
    Backbone,
    DenseFeatures,
    DenseTokens,
    Extractor,
    ExtractorSpec,
    LocalMapHead,
    extract_by_size,
)
from vpr_dhe.features.local_head import build_local_head
from vpr_dhe.models.model_file import ModelFile
from vpr_dhe.records import Features, Grid, Image
from vpr_dhe.runtime.choices import FP32, ExtractorPrecision
from vpr_dhe.runtime.tf32 import without_tf32
from vpr_dhe.runtime.threads import in_parallel, split_evenly

Item = TypeVar("Item")


class ExtractorNetwork(nn.Module):
    """Backbone, aggregator, and a local head if there is one.

    Aggregated tokens are the global descriptor. The local map is the output of the head, or the L2-normalised tokens
    without one. With `map_grid`, tokens of images of any size are interpolated to this grid for the local map.
    """

    def __init__(
        self,
        backbone: Backbone,
        aggregator: Aggregator,
        local_head: LocalMapHead | None = None,
        map_grid: Grid | None = None,
    ) -> None:
        super().__init__()
        self.backbone, self.aggregator, self.local_head, self.map_grid = backbone, aggregator, local_head, map_grid

    def forward(self, images: Float[Tensor, "batch 3 height width"]) -> DenseFeatures:
        """Extract features of preprocessed images; global descriptors are not normalised."""
        tokens = self.backbone(images)
        cells = tokens if self.map_grid is None else _interpolated(tokens, self.map_grid)
        return DenseFeatures(self.aggregator(tokens), *self._local_maps(cells), self.aggregator.code_values(tokens))

    def _local_maps(self, tokens: DenseTokens) -> tuple[Float[Tensor, "batch cells local_dimension"], Grid]:
        if self.local_head is None:
            return functional.normalize(tokens.patches, dim=-1), tokens.grid
        confidence = self.aggregator.confidence(tokens)
        local_maps = self.local_head(tokens.patches, tokens.grid, confidence)
        return local_maps, self.local_head.grid_for(tokens.grid)


def _interpolated(tokens: DenseTokens, grid: Grid) -> DenseTokens:
    """Interpolate tokens to another grid over the same image (bilinear)."""
    maps = tokens.patches.mT.unflatten(2, tuple(tokens.grid))
    resized = functional.interpolate(maps, size=tuple(grid), mode="bilinear", align_corners=False)
    return DenseTokens(resized.flatten(2).mT, grid, tokens.class_token)


class _InBfloat16(Backbone):
    """Backbone that multiplies in bfloat16 and returns tokens in single precision."""

    def __init__(self, backbone: Backbone) -> None:
        super().__init__()
        self.backbone, self.dimension = backbone, backbone.dimension

    def forward(self, images: Float[Tensor, "batch 3 height width"]) -> DenseTokens:
        with torch.autocast(images.device.type, torch.bfloat16):
            return self.backbone(images).in_float32()


class NeuralExtractor(Extractor):
    """Extractor with a network in torch; see `load_extractor` for `precision` and `compiled`."""

    def __init__(
        self,
        model: ModelFile,
        name: str,
        device: torch.device,
        precision: ExtractorPrecision = FP32,
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
        local_head = None
        if architecture.local_head is not None:
            local_head = build_local_head(architecture.local_head, backbone.dimension, model.part("local_head"))
            _load_weights(local_head, model, "local_head")
        self._exact = precision == FP32
        self._layout = torch.channels_last if backbone.convolutional else torch.contiguous_format
        backbone = _InBfloat16(backbone) if precision == "bf16" else backbone
        network = ExtractorNetwork(backbone, aggregator, local_head).eval().to(device)
        self.network = network.to(memory_format=self._layout)
        self._run = torch.compile(self.network) if compiled else self.network
        self.device = device
        self.arithmetic = f"torch {device} {precision}{' compiled' if compiled else ''}"
        self.model_file = model
        self.spec = self._measured_spec(model, name)
        if model.preprocessing.resize_mode != "squeeze":
            self.network.map_grid = self.spec.grid

    def _measured_spec(self, model: ModelFile, name: str) -> ExtractorSpec:
        """Determine dimensions and grid from a black image."""
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
            code_bits=0 if features.code_values is None else features.code_values.shape[1],
        )

    def extract(self, images: Sequence[Image]) -> list[Features]:
        """Extract the features of each image; they stay on the extractor's device."""
        extracted = in_parallel(self._extract_part, self.split(images))
        return [features for part in extracted for features in part]

    def split(self, images: Sequence[Item]) -> list[Sequence[Item]]:
        """Split a batch into one part per core, because a part fits the caches of a core and the batch does not.

        There is only one part on a GPU, for a compiled network, and for fewer images than cores.
        """
        threads = torch.get_num_threads()
        whole = self.device.type != "cpu" or self._run is not self.network or len(images) < threads
        return [images] if whole else split_evenly(images, threads)

    def _extract_part(self, images: Sequence[Image]) -> list[Features]:
        return extract_by_size(images, self._preprocessing, self.device, self.extract_batch)

    @torch.inference_mode()
    def extract_batch(self, batch: Float[Tensor, "batch 3 height width"]) -> DenseFeatures:
        """Extract features of preprocessed images; fp32 disables TF32, the default of GPUs."""
        with without_tf32(self.device) if self._exact else nullcontext():
            return self._run(batch.to(memory_format=self._layout))


def _load_weights(part: nn.Module, model: ModelFile, prefix: str) -> None:
    """Load the weights of one part strictly."""
    try:
        part.load_state_dict(model.part(prefix), strict=True)
    except RuntimeError as error:
        reason = " ".join(str(error).split())
        raise ModelError(f"model {model.name!r} does not fit its architecture: {reason}; convert it again") from error
