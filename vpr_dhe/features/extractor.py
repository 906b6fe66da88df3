"""Extractors by model name, and the extractor that is composed of a backbone and an aggregator."""

from collections.abc import Sequence
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from vpr_dhe.errors import ModelError
from vpr_dhe.features.aggregators import build_aggregator
from vpr_dhe.features.backbones import build_backbone
from vpr_dhe.features.backbones.timm_cnn import timm_cnn_model_file
from vpr_dhe.features.backbones.timm_vit import timm_model_file
from vpr_dhe.features.base import DenseTokens, Extractor, ExtractorSpec
from vpr_dhe.features.sift_vlad import SiftVladExtractor
from vpr_dhe.images import image_size, to_network_input
from vpr_dhe.models.catalogue import SIFT_VLAD, TIMM_CNN_PREFIX, TIMM_PREFIX, open_model
from vpr_dhe.models.model_file import ModelFile
from vpr_dhe.models.weights_file import SUFFIX
from vpr_dhe.records import Features, Frame, Image, Size

# What timm fetches from its hub, by the beginning of the name.
_FETCHED = {TIMM_PREFIX: timm_model_file, TIMM_CNN_PREFIX: timm_cnn_model_file}


def load_extractor(name: str, device: str = "cpu") -> Extractor:
    """Load an extractor by the name of its model.

    Args:
        name: a bundled model, the path of a model file, or `timm:NAME`, where `timm:NAME@SIDE` chooses the input side
            in pixels, rounded down to whole patches; likewise `timm-cnn:NAME`.
        device: a torch device.

    Raises:
        ModelError: if the model is unknown, cannot be downloaded, or its file does not fit its architecture.
    """
    prefix = next((prefix for prefix in _FETCHED if name.startswith(prefix)), None)
    model = open_model(name) if prefix is None else _fetch(name, prefix)
    # A path must lead to the file from any folder, because an index remembers it.
    reference = str(Path(name).resolve()) if name.endswith(SUFFIX) else name
    if model.architecture.backbone == SIFT_VLAD:
        return SiftVladExtractor(model, reference)
    return NeuralExtractor(model, reference, torch.device(device))


def _fetch(name: str, prefix: str) -> ModelFile:
    architecture, _, side = name.removeprefix(prefix).partition("@")
    if side and not side.isdecimal():
        raise ModelError(f"{name!r} asks for an input side of {side!r}; expected pixels, such as {prefix}NAME@322")
    return _FETCHED[prefix](architecture, size=Size(int(side), int(side)) if side else None)


class NeuralExtractor(Extractor):
    """Dense tokens of a backbone: each L2-normalised for the local map, pooled by an aggregator for the vector."""

    def __init__(self, model: ModelFile, name: str, device: torch.device) -> None:
        architecture, self._preprocessing = model.architecture, model.preprocessing
        backbone = build_backbone(
            architecture.backbone, blocks=architecture.blocks, input_size=model.preprocessing.size
        )
        aggregator = build_aggregator(architecture.aggregator, backbone.dimension)
        self._backbone = _with_weights(backbone, model, "backbone").to(device)
        self._aggregator = _with_weights(aggregator, model, "aggregator").to(device)
        self._device = device
        self.model_file = model
        self.spec = self._measured_spec(model, name)

    def _measured_spec(self, model: ModelFile, name: str) -> ExtractorSpec:
        """Run one black image through, so that dimensions are what they are and not what a table says."""
        size = model.preprocessing.size
        tokens, pooled = self._forward(torch.zeros(1, 3, size.height, size.width, device=self._device))
        return ExtractorSpec(
            model=name,
            fingerprint=model.extractor_fingerprint,
            dimension=pooled.shape[1],
            local_dimension=tokens.patches.shape[2],
            grid=tokens.grid,
            input_size=size,
            unit_norm=model.architecture.unit_norm,
            tolerance_cells=model.architecture.tolerance_cells,
        )

    def extract(self, images: Sequence[Image]) -> list[Features]:
        """Describe each image; features stay on the extractor's device."""
        batch = to_network_input(images, self._preprocessing, self._device)
        tokens, pooled = self._forward(batch)
        local_maps = functional.normalize(tokens.patches, dim=-1)
        return [
            Features(vector, local_map, tokens.grid, Frame(image_size(image), self._preprocessing.size))
            for vector, local_map, image in zip(pooled, local_maps, images, strict=True)
        ]

    @torch.inference_mode()
    def _forward(
        self, batch: Float[Tensor, "batch 3 height width"]
    ) -> tuple[DenseTokens, Float[Tensor, "batch dimension"]]:
        tokens = self._backbone(batch)
        return tokens, self._aggregator(tokens)


def _with_weights(part: nn.Module, model: ModelFile, prefix: str) -> nn.Module:
    """Load the weights of one part, every one of them and no other, and make it ready for inference."""
    try:
        part.load_state_dict(model.part(prefix), strict=True)
    except RuntimeError as error:
        reason = " ".join(str(error).split())
        raise ModelError(f"model {model.name!r} does not fit its architecture: {reason}; convert it again") from error
    return part.eval()
