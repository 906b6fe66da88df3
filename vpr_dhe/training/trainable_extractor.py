"""Extractor with trainable weights."""

import re
from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import normalize

from vpr_dhe.errors import ModelError
from vpr_dhe.features.aggregators import build_aggregator
from vpr_dhe.features.backbones import build_backbone
from vpr_dhe.features.base import Aggregator, Backbone, DenseFeatures
from vpr_dhe.models.model_file import Architecture, ModelFile
from vpr_dhe.models.names import SIFT_VLAD
from vpr_dhe.records import Grid, Preprocessing, Size
from vpr_dhe.runtime.seeding import seeded

# REI's inlier threshold: 24 px of 384, in cells of 16 px.
_TOLERANCE_CELLS = 1.5
_BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.SyncBatchNorm)
_BLOCK = re.compile(r"(?:^|\.)blocks\.(\d+)\.")


class TrainableExtractor(nn.Module):
    """Backbone and aggregator with the weights of a model file.

    Args:
        model: model with a network as extractor.
        first_trained_block: first transformer block to train, with later blocks and the aggregator, while everything
            else is frozen; None trains everything.
        freeze_batch_norm: whether batch normalisation keeps the statistics of the model, unless they are those of a new
            network. With the statistics of batches of few images, a trained network gets worse. Frozen blocks always
            keep theirs.
        backbone: backbone instead of that of the model.
        aggregator: aggregator instead of that of the model.

    Raises:
        ModelError: if there is nothing to train.
    """

    def __init__(
        self,
        model: ModelFile,
        first_trained_block: int | None = None,
        *,
        freeze_batch_norm: bool = False,
        backbone: Backbone | None = None,
        aggregator: Aggregator | None = None,
    ) -> None:
        super().__init__()
        self._model = model
        self.backbone = backbone or _backbone_of(model)
        self.aggregator = aggregator or _aggregator_of(model, self.backbone.dimension)
        for name, parameter in self.backbone.named_parameters():
            parameter.requires_grad_(first_trained_block is None or _block_of(name) >= first_trained_block)
        norms = (module for module in self.modules() if isinstance(module, _BATCH_NORMS))
        self._frozen_norms = [one for one in norms if _is_frozen(one) or (freeze_batch_norm and _has_statistics(one))]
        if not any(parameter.requires_grad for parameter in self.backbone.parameters()):
            raise ModelError(f"model {model.name!r} has no block {first_trained_block}: blocks are counted from 0")
        self.train()

    @property
    def frozen_norms(self) -> int:
        """Number of batch normalisations that keep their statistics."""
        return len(self._frozen_norms)

    def train(self, mode: bool = True) -> "TrainableExtractor":
        """Set the mode; batch normalisation that is frozen stays in that of evaluation."""
        super().train(mode)
        for norm in self._frozen_norms:
            norm.eval()
        return self

    def forward(self, images: Float[Tensor, "batch 3 height width"]) -> DenseFeatures:
        """Extract features from preprocessed images; vectors are normalised if the model has `unit_norm`."""
        tokens = self.backbone(images)
        vectors = self.aggregator(tokens)
        if self._model.architecture.unit_norm:
            vectors = normalize(vectors, dim=1)
        return DenseFeatures(vectors, normalize(tokens.patches, dim=-1), tokens.grid)

    @torch.no_grad()
    def grid(self, input_size: Size) -> Grid:
        """Grid of local maps for inputs of this size."""
        # In training mode, batch normalisation would take over the statistics of the black image.
        mode = self.training
        self.eval()
        try:
            return self(torch.zeros(1, 3, input_size.height, input_size.width)).grid
        finally:
            self.train(mode)

    def model_file(self, training_data: str) -> ModelFile:
        """The model with these weights, and without heads, which were trained for other weights."""
        state = {f"backbone.{name}": value for name, value in self.backbone.state_dict().items()}
        state |= {f"aggregator.{name}": value for name, value in self.aggregator.state_dict().items()}
        return replace(
            self._model,
            architecture=replace(self._model.architecture, head=None, local_head=None),
            training_data=f"{self._model.training_data}; extractor: {training_data}",
            tensors={name: value.detach().cpu().clone() for name, value in state.items()},
            published=False,
        )


def _is_frozen(norm: nn.Module) -> bool:
    parameters = list(norm.parameters())
    return bool(parameters) and not any(parameter.requires_grad for parameter in parameters)


def _has_statistics(norm: nn.Module) -> bool:
    """Whether a normalisation has seen images: its means are not zero any more."""
    return bool(norm.get_buffer("running_mean").any())


def require_network(model: ModelFile) -> ModelFile:
    """Return a model whose extractor is a network.

    Raises:
        ModelError: if it is not.
    """
    if model.architecture.backbone == SIFT_VLAD:
        raise ModelError(f"model {model.name!r} is not a network and has nothing to train; start from another")
    return model


def new_model(backbone: str, aggregator: str, input_size: Size, seed: int) -> ModelFile:
    """Make an untrained model: random weights, and images squeezed to `input_size` and normalised around grey.

    Args:
        backbone: one of `backbone_names()` that needs no download.
        aggregator: one of `aggregator_names()`.
        input_size: input size in pixels.
        seed: seed of the weights.

    Raises:
        ModelError: if there are no such parts, or the backbone does not accept the input size.
    """
    with seeded(seed):
        built_backbone = build_backbone(backbone, blocks=None, input_size=input_size)
        parts = {"backbone": built_backbone, "aggregator": build_aggregator(aggregator, built_backbone.dimension)}
    return ModelFile(
        name=f"{backbone}-{aggregator}",
        architecture=Architecture(backbone, aggregator, tolerance_cells=_TOLERANCE_CELLS),
        preprocessing=Preprocessing(*input_size, "bilinear", True, mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25)),
        licence="of who trains it",
        training_data="random weights",
        tensors={
            f"{part}.{name}": value for part, built in parts.items() for name, value in built.state_dict().items()
        },
    )


def _block_of(parameter: str) -> int:
    """Number of the block of a parameter; -1 if it is in no block."""
    found = _BLOCK.search(parameter)
    return int(found[1]) if found else -1


def _backbone_of(model: ModelFile) -> Backbone:
    architecture = require_network(model).architecture
    built = build_backbone(architecture.backbone, blocks=architecture.blocks, input_size=model.preprocessing.size)
    built.load_state_dict(model.part("backbone"))
    return built


def _aggregator_of(model: ModelFile, dimension: int) -> Aggregator:
    state = model.part("aggregator")
    built = build_aggregator(model.architecture.aggregator, dimension, state)
    built.load_state_dict(state)
    return built
