"""Stage `distillation`: trains a student to reproduce the tokens of a teacher, cell by cell, on unlabelled images.

The student has the frozen aggregator and local head of its teacher. The losses compare tokens, local maps and global
descriptors of both, and the similarities of the descriptors within a batch.

Sources: Romero et al., "FitNets: Hints for thin deep nets", ICLR 2015 (tokens); Park et al., "Relational knowledge
distillation", CVPR 2019 (similarities within a batch).
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from statistics import fmean
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional
from torch.nn.functional import normalize

from vpr_dhe.errors import ModelError
from vpr_dhe.features.aggregators import build_aggregator
from vpr_dhe.features.backbones import build_backbone
from vpr_dhe.features.base import DenseTokens, Extractor
from vpr_dhe.features.extractor import extractor_of
from vpr_dhe.features.local_head import local_head_of
from vpr_dhe.images.preprocessing import to_network_input
from vpr_dhe.models.model_file import ModelFile
from vpr_dhe.records import Grid, Preprocessing, Size
from vpr_dhe.training.devices import to_device
from vpr_dhe.training.held_out import HeldOut
from vpr_dhe.training.schedules import warm_cosine_decay
from vpr_dhe.training.sources.base import Draws, PairSource, TrainingPair
from vpr_dhe.training.stage import Batches, Fact, Stage, StepLoss, Turn, Validation

_CPU = torch.device("cpu")


@dataclass(frozen=True)
class DistillationSettings:
    """Hyperparameters of `distillation`.

    Args:
        batch_size: views per step and process.
        learning_rate: peak learning rate of AdamW.
        weight_decay: weight decay of AdamW, for matrices only.
        decay_steps: length of the cosine schedule, after which the learning rate stays at a hundredth.
        local_weight: weight of the loss of local maps; that of tokens is 1.
        vector_weight: weight of the loss of global descriptors.
        relation_weight: weight of the loss of their similarities.
        seed: seed of the data and their order.
        validation_photos: maximum number of validation images.
    """

    batch_size: int = 16
    learning_rate: float = 1e-3
    weight_decay: float = 0.02
    decay_steps: int = 10_000
    local_weight: float = 0.5
    vector_weight: float = 0.5
    relation_weight: float = 5.0
    seed: int = 0
    validation_photos: int = 100


class TaughtViews(NamedTuple):
    """Batch of views as input of the student, with the teacher's outputs as targets.

    `tokens` have unit norm, and are zero in cells without texture.
    """

    images: Float[Tensor, "views 3 height width"]
    tokens: Float[Tensor, "views cells dimension"]
    vectors: Float[Tensor, "views descriptor"]


class TaughtBatches(Batches[TaughtViews]):
    """Batches of views with the teacher's tokens and vectors."""

    def __init__(self, source: PairSource, teacher: Extractor, student: Preprocessing, settings: DistillationSettings):
        self._draws, self._teacher, self._settings = Draws(source, settings.seed), teacher, settings
        self._preprocessing = resized(student, teacher.spec.input_size)

    def batch(self, turn: Turn) -> TaughtViews:
        """Load the views of a turn and extract the teacher's features."""
        size = self._settings.batch_size
        first = (turn.step * turn.processes + turn.process) * size
        return self.prepare([self._draws.pair(number) for number in range(first, first + size)])

    def prepare(self, pairs: Sequence[TrainingPair]) -> TaughtViews:
        """Extract the teacher's features of images A; images B are for the student."""
        taught = self._teacher.extract([pair.image_a for pair in pairs])
        return TaughtViews(
            to_network_input([pair.image_b for pair in pairs], self._preprocessing, _CPU),
            torch.stack([features.local_map for features in taught]).cpu(),
            torch.stack([features.global_descriptor for features in taught]).cpu(),
        )


class DistillationStage(Stage[TaughtViews]):
    """Training of the backbone of a student.

    Args:
        student: model made by `student_of`.
        teacher: teacher network.
        training: training images for teacher and student.
        validation: held-out images for both.
        settings: hyperparameters.
        view_size: size of the training images; validation is at the student's input size.
        training_data: images and their licences, for the model file.
        device: device of the teacher.

    Raises:
        ModelError: if the grids of both differ.
    """

    def __init__(
        self,
        student: ModelFile,
        teacher: ModelFile,
        training: PairSource,
        validation: PairSource,
        settings: DistillationSettings,
        *,
        view_size: Size,
        training_data: str,
        device: str = "cpu",
    ) -> None:
        super().__init__()
        self._student, self._settings = student, settings
        self._teacher_name, self._training_data = teacher.name, training_data
        architecture, size = student.architecture, student.preprocessing.size
        self.backbone = build_backbone(architecture.backbone, blocks=architecture.blocks, input_size=size)
        self.backbone.load_state_dict(student.part("backbone"))
        self._layout = torch.channels_last if self.backbone.convolutional else torch.contiguous_format
        self.backbone.to(memory_format=self._layout)
        self.aggregator = build_aggregator(architecture.aggregator, self.backbone.dimension, student.part("aggregator"))
        self.aggregator.load_state_dict(student.part("aggregator"))
        self.aggregator.requires_grad_(False)
        self.local_head = local_head_of(student)
        if self.local_head is not None:
            self.local_head.requires_grad_(False)
        of_views, of_photos = (_teacher_at(side, teacher, device) for side in (view_size, size))
        self._require_same_grid(of_views)
        self.batches = TaughtBatches(training, of_views, student.preprocessing, settings)
        self._held_out = HeldOut(
            validation,
            settings.seed,
            max_pairs=settings.validation_photos,
            batch_size=settings.batch_size,
            prepare=TaughtBatches(validation, of_photos, student.preprocessing, settings).prepare,
        )
        self.facts: Mapping[str, Fact] = {
            "stage": "distillation",
            "teacher": teacher.extractor_fingerprint,
            "student": student.extractor_fingerprint,
            "photos": training.description,
            "view_width": view_size.width,
            "view_height": view_size.height,
            **asdict(settings),
        }

    @torch.no_grad()
    def _require_same_grid(self, teacher: Extractor) -> None:
        width, height = teacher.spec.input_size
        # Not in training mode, in which the black image would enter the statistics of batch normalisation.
        grid = self.backbone.eval()(torch.zeros(1, 3, height, width)).grid
        self.backbone.train()
        if grid != teacher.spec.grid:
            raise ModelError(
                f"{self._student.name} has {grid.columns} x {grid.rows} cells and its teacher "
                f"{teacher.spec.grid.columns} x {teacher.spec.grid.rows}; choose a network with cells of the same size"
            )

    def optimizer(self) -> torch.optim.Optimizer:
        """AdamW with weight decay of matrices only."""
        matrices = [parameter for parameter in self.backbone.parameters() if parameter.ndim > 1]
        others = [parameter for parameter in self.backbone.parameters() if parameter.ndim <= 1]
        groups = [
            {"params": matrices, "weight_decay": self._settings.weight_decay},
            {"params": others, "weight_decay": 0.0},
        ]
        return torch.optim.AdamW(groups, lr=self._settings.learning_rate)

    def learning_rate_factor(self, step: int) -> float:
        """Linear warm-up over 50 steps, then cosine decay."""
        return warm_cosine_decay(step, self._settings.decay_steps)

    def forward(self, batch: TaughtViews) -> StepLoss:
        """Weighted sum of all losses."""
        tokens = self.backbone(batch.images.to(memory_format=self._layout)).in_float32()
        # In float32, because sums over cells lose accuracy in half precision.
        with torch.autocast(batch.images.device.type, enabled=False):
            return self._loss(DenseTokens(normalize(tokens.patches, dim=-1), tokens.grid), batch)

    def _loss(self, tokens: DenseTokens, batch: TaughtViews) -> StepLoss:
        settings = self._settings
        seen = batch.tokens.square().sum(-1) > 0
        of_tokens = token_loss(tokens.patches, batch.tokens, seen)
        vectors, taught = normalize(self.aggregator(tokens), dim=1), normalize(batch.vectors, dim=1)
        of_vectors = 1 - (vectors * taught).sum(1).mean()
        relation = relation_loss(vectors, taught)
        loss = of_tokens + settings.vector_weight * of_vectors + settings.relation_weight * relation
        scalars = {"tokens": of_tokens, "vectors": of_vectors, "relation": relation}
        if self.local_head is not None:
            scalars["local"] = self._local_loss(tokens, batch.tokens, seen)
            loss = loss + settings.local_weight * scalars["local"]
        return StepLoss(loss, {name: value.detach() for name, value in scalars.items()})

    def _local_loss(
        self,
        tokens: DenseTokens,
        taught: Float[Tensor, "views cells dimension"],
        seen: Bool[Tensor, "views cells"],
    ) -> Float[Tensor, ""]:
        """Distance of descriptors, weighted by reliability, plus cross-entropy of the reliabilities."""
        assert self.local_head is not None
        descriptors, logits = self.local_head.cells(tokens.patches, tokens.grid)
        with torch.no_grad():
            wanted, wanted_logits = self.local_head.cells(taught, tokens.grid)
            reliable = wanted_logits.sigmoid()
            # The head also uses neighbouring cells, and the teacher's tokens of cells without texture are unknown.
            weights = reliable * _far_from_unseen(seen, tokens.grid)
        distance = 1 - (descriptors * wanted).sum(-1)
        of_descriptors = (weights * distance).sum() / weights.sum().clamp(min=1)
        return of_descriptors + functional.binary_cross_entropy_with_logits(logits, reliable)

    @torch.no_grad()
    def validate(self) -> Validation:
        """Loss on uncropped held-out images."""
        device = next(self.parameters()).device
        batches = self._held_out.batches(self.preparation)
        measured = [self.forward(to_device(batch, device)) for batch in batches]
        scalars = {name: fmean(float(one.scalars[name]) for one in measured) for name in measured[0].scalars}
        return Validation(fmean(float(one.loss) for one in measured), scalars)

    def model_file(self) -> ModelFile:
        """The student with these weights."""
        state = {f"backbone.{name}": value for name, value in self.backbone.state_dict().items()}
        tensors = {name: value.detach().cpu().contiguous().clone() for name, value in state.items()}
        others = {name: value for name, value in self._student.tensors.items() if not name.startswith("backbone.")}
        known, added = self._student.training_data, f"; distillation of {self._teacher_name}: {self._training_data}"
        return replace(self._student, tensors={**tensors, **others}, training_data=known.removesuffix(added) + added)


def token_loss(
    tokens: Float[Tensor, "views cells dimension"],
    taught: Float[Tensor, "views cells dimension"],
    seen: Bool[Tensor, "views cells"],
) -> Float[Tensor, ""]:
    """Mean of 1 - cosine, from 0 to 2, of the centred tokens of the cells marked in `seen`."""
    common = taught[seen].mean(0) if bool(seen.any()) else taught.new_zeros(taught.shape[-1])
    distance = 1 - functional.cosine_similarity(tokens - common, taught - common, dim=-1)
    return (distance * seen).sum() / seen.sum().clamp(min=1)


def relation_loss(
    vectors: Float[Tensor, "views dimension"], taught: Float[Tensor, "views dimension"]
) -> Float[Tensor, ""]:
    """Mean squared difference of the pairwise similarities of unit vectors; zero for a single vector."""
    difference = vectors @ vectors.T - taught @ taught.T
    pairs = len(vectors) * (len(vectors) - 1)
    return (difference - difference.diag().diag()).square().sum() / max(1, pairs)


def resized(preprocessing: Preprocessing, size: Size) -> Preprocessing:
    """Preprocessing with another input size."""
    return replace(preprocessing, width=size.width, height=size.height)


def _teacher_at(size: Size, teacher: ModelFile, device: str) -> Extractor:
    """Extractor of the teacher's tokens and vectors of images of a size."""
    model = replace(teacher.without_local_head(), preprocessing=resized(teacher.preprocessing, size))
    return extractor_of(model, teacher.name, device)


def _far_from_unseen(seen: Bool[Tensor, "views cells"], grid: Grid) -> Float[Tensor, "views cells"]:
    """1 for cells whose eight neighbours are all seen or beyond the border; 0 for others."""
    unseen = (~seen).float().unflatten(1, (1, grid.rows, grid.columns))
    return 1 - functional.max_pool2d(unseen, 3, stride=1, padding=1).flatten(1)
