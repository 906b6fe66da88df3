"""Stage `pretrain`: trains a network from random weights on pairs of generated views, without labels.

Two contrastive losses are combined: of the global vectors, between views of one place and views of others, and of the
local maps, between cells that correspond under the known homography. The first steps can use images of half the side,
at a quarter of the cost.

Sources: Chen et al., "A Simple Framework for Contrastive Learning of Visual Representations", ICML 2020; Wang et al.,
"Dense Contrastive Learning for Self-Supervised Visual Pre-Training", CVPR 2021.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from math import cos, pi
from statistics import fmean
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Float64
from torch import Tensor
from torch.nn.functional import normalize

from vpr_dhe.features.base import DenseFeatures
from vpr_dhe.images.preprocessing import to_network_input
from vpr_dhe.models.model_file import ModelFile
from vpr_dhe.records import Preprocessing, Size
from vpr_dhe.training.devices import to_device
from vpr_dhe.training.extracted_pairs import homography_between_inputs
from vpr_dhe.training.held_out import HeldOut
from vpr_dhe.training.pretrain.contrastive import contrastive_loss, correspondence_loss, corresponding_cells
from vpr_dhe.training.sources import TrainingData
from vpr_dhe.training.sources.base import Draws, TrainingPair, others_of_place, same_place_mask
from vpr_dhe.training.stage import Batches, Fact, Stage, StepLoss, Turn, Validation
from vpr_dhe.training.trainable_extractor import TrainableExtractor

_CPU = torch.device("cpu")


@dataclass(frozen=True)
class PretrainSettings:
    """Hyperparameters of `pretrain`.

    Args:
        steps: length of the cosine schedule, after which the learning rate is 0.
        half_size_steps: initial steps on images of half the side, if the network accepts that size.
        warmup_steps: initial steps of linear warm-up.
        batch_size: pairs per step and process; each is contrasted with the others.
        learning_rate: peak learning rate of AdamW.
        weight_decay: weight decay of AdamW.
        temperature: temperature of both contrastive losses.
        dense_weight: weight of the contrastive loss of local maps.
        seed: seed of the order of the data.
        validation_pairs: maximum number of validation pairs.
    """

    steps: int = 20_000
    half_size_steps: int = 0
    warmup_steps: int = 200
    batch_size: int = 32
    learning_rate: float = 1e-3
    weight_decay: float = 0.05
    temperature: float = 0.1
    dense_weight: float = 1.0
    seed: int = 0
    validation_pairs: int = 128


class ViewBatch(NamedTuple):
    """Preprocessed pairs of views with their homographies.

    `homographies` map pixels of A's input to pixels of B's; they hold for all of A in the pairs marked in `known`.
    `same_place` marks pairs that may show the same place.
    """

    views_a: Float[Tensor, "pairs 3 height width"]
    views_b: Float[Tensor, "pairs 3 height width"]
    homographies: Float64[Tensor, "pairs 3 3"]
    known: Bool[Tensor, " pairs"]
    same_place: Bool[Tensor, "pairs pairs"]


class ViewBatches(Batches[ViewBatch]):
    """Batches of view pairs, initially at half the size."""

    def __init__(self, draws: Draws, preprocessing: Preprocessing, settings: PretrainSettings) -> None:
        self._draws, self._settings = draws, settings
        self._whole, self._half = preprocessing, _halved(preprocessing)

    def batch(self, turn: Turn) -> ViewBatch:
        """Load the pairs of a turn."""
        size = self._settings.batch_size
        first = (turn.step * turn.processes + turn.process) * size
        preprocessing = self._half if turn.step < self._settings.half_size_steps else self._whole
        return views([self._draws.pair(number) for number in range(first, first + size)], preprocessing)


def views(pairs: Sequence[TrainingPair], preprocessing: Preprocessing) -> ViewBatch:
    """Preprocess pairs to a batch."""
    return ViewBatch(
        to_network_input([pair.image_a for pair in pairs], preprocessing, _CPU),
        to_network_input([pair.image_b for pair in pairs], preprocessing, _CPU),
        torch.cat([homography_between_inputs(pair, preprocessing.size) for pair in pairs]),
        torch.tensor([pair.homography is not None and pair.holds_everywhere for pair in pairs]),
        same_place_mask([pair.places for pair in pairs]),
    )


class PretrainStage(Stage[ViewBatch]):
    """Training of a whole network on pairs of views.

    Args:
        extractor: extractor to train.
        model: model file with its weights.
        data: warps and generated views for training and validation.
        settings: hyperparameters; use batches of tens of pairs, for enough negatives.
        training_data: images and their licences, for the model file.
    """

    def __init__(
        self,
        extractor: TrainableExtractor,
        model: ModelFile,
        data: TrainingData,
        settings: PretrainSettings,
        *,
        training_data: str,
    ) -> None:
        super().__init__()
        self.extractor, self._settings, self._preprocessing = extractor, settings, model.preprocessing
        self._training_data = training_data
        self.batches = ViewBatches(Draws(data.warps, settings.seed), model.preprocessing, settings)
        self._held_out = HeldOut(
            data.validation,
            settings.seed,
            max_pairs=settings.validation_pairs,
            batch_size=settings.batch_size,
            prepare=partial(views, preprocessing=model.preprocessing),
        )
        self.facts: Mapping[str, Fact] = {
            "stage": "pretrain",
            "model": model.extractor_fingerprint,
            "data": data.warps.description,
            **asdict(settings),
        }

    def optimizer(self) -> torch.optim.Optimizer:
        """AdamW over all parameters, with weight decay of matrices only."""
        trained = [parameter for parameter in self.parameters() if parameter.requires_grad]
        matrices = [parameter for parameter in trained if parameter.ndim > 1]
        others = [parameter for parameter in trained if parameter.ndim <= 1]
        groups = [
            {"params": matrices, "weight_decay": self._settings.weight_decay},
            {"params": others, "weight_decay": 0.0},
        ]
        return torch.optim.AdamW(groups, lr=self._settings.learning_rate)

    def learning_rate_factor(self, step: int) -> float:
        """Linear warm-up, then cosine decay."""
        settings = self._settings
        if step < settings.warmup_steps:
            return (step + 1) / settings.warmup_steps
        progress = (step - settings.warmup_steps) / max(1, settings.steps - settings.warmup_steps)
        return (1 + cos(pi * min(progress, 1.0))) / 2

    def forward(self, batch: ViewBatch) -> StepLoss:
        """Sum of both contrastive losses."""
        return self._loss(batch, self._extract(batch))

    def _extract(self, batch: ViewBatch) -> DenseFeatures:
        return self.extractor(torch.cat([batch.views_a, batch.views_b]))

    def _loss(self, batch: ViewBatch, features: DenseFeatures) -> StepLoss:
        settings, pairs = self._settings, len(batch.views_a)
        vectors = normalize(features.vectors.float(), dim=1)
        contrast = contrastive_loss(vectors[:pairs], vectors[pairs:], batch.same_place, settings.temperature)
        maps = features.local_maps.float()
        dense = correspondence_loss(
            maps[:pairs][batch.known],
            maps[pairs:][batch.known],
            corresponding_cells(batch.homographies[batch.known], features.grid, _size(batch.views_a)),
            settings.temperature,
        )
        loss = contrast + settings.dense_weight * dense
        return StepLoss(loss, {"contrast": contrast.detach(), "dense_contrast": dense.detach()})

    def validate(self) -> Validation:
        """Loss, recall of the other view of each pair, and accuracy of cell matches to within one cell."""
        device = next(self.parameters()).device
        batches = [to_device(batch, device) for batch in self._held_out.batches(self.preparation)]
        features = [self._extract(batch) for batch in batches]
        losses = [self._loss(*both) for both in zip(batches, features, strict=True)]
        scalars = {name: fmean(float(loss.scalars[name]) for loss in losses) for name in losses[0].scalars}
        found = [self._found(*both) for both in zip(batches, features, strict=True)]
        scalars |= {name: 100 * float(torch.cat(parts).double().mean()) for name, parts in _by_name(found)}
        return Validation(fmean(float(loss.loss.detach()) for loss in losses), scalars)

    def model_file(self) -> ModelFile:
        """The current model."""
        return self.extractor.model_file(self._training_data)

    def _found(self, batch: ViewBatch, features: DenseFeatures) -> "_Found":
        vectors, pairs = normalize(features.vectors.float(), dim=1), len(batch.views_a)
        excluded = others_of_place(batch.same_place)
        nearest = (vectors[:pairs] @ vectors[pairs:].mT).masked_fill(excluded, -torch.inf).argmax(dim=1)
        maps_a, maps_b = (part[batch.known].float() for part in features.local_maps.split(pairs))
        weights = corresponding_cells(batch.homographies[batch.known], features.grid, _size(batch.views_a))
        chosen = (maps_a @ maps_b.mT).argmax(dim=2, keepdim=True)
        visible = weights.sum(dim=2) > 0
        return _Found(
            (nearest == torch.arange(pairs, device=nearest.device)).cpu(),
            (weights.gather(2, chosen).squeeze(2) > 0)[visible].cpu(),
        )


class _Found(NamedTuple):
    """Whether views retrieve the other view, and cells one of the four cells around their true position."""

    recall_at_1: Bool[Tensor, " pairs"]
    cells_right: Bool[Tensor, " visible"]


def _by_name(found: Sequence[_Found]) -> Iterator[tuple[str, list[Tensor]]]:
    for name in _Found._fields:
        yield name, [getattr(part, name) for part in found]


def _halved(preprocessing: Preprocessing) -> Preprocessing:
    return replace(preprocessing, width=preprocessing.width // 2, height=preprocessing.height // 2)


def _size(views: Float[Tensor, "views 3 height width"]) -> Size:
    return Size(views.shape[3], views.shape[2])
