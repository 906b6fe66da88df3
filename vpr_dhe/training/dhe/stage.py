"""Stage `dhe`: trains only the homography head, on the local maps of a frozen extractor.

Source: Lu et al., "Deep Homography Estimation for Visual Place Recognition", AAAI 2024, section "Training": Adam, 1e-4,
batches of 16, learning rate times 0.8 every 10,000 steps, REI loss. The preceding warm-up on images warped by known
homographies, with a corner error loss, is an addition.
"""

from collections.abc import Mapping
from copy import deepcopy
from dataclasses import asdict, dataclass, replace
from functools import partial
from statistics import fmean, median
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float64
from torch import Tensor

from vpr_dhe.errors import ModelError
from vpr_dhe.features.base import Extractor
from vpr_dhe.geometry.coordinates import corners
from vpr_dhe.geometry.homography import mean_corner_error
from vpr_dhe.models.exported_model import require_weights
from vpr_dhe.models.model_file import ModelFile
from vpr_dhe.records import Grid
from vpr_dhe.runtime.seeding import seeded
from vpr_dhe.training.devices import to_device
from vpr_dhe.training.dhe.corner_error import corner_error_loss
from vpr_dhe.training.dhe.predicted import PredictedHomographies, predicted_homographies
from vpr_dhe.training.extracted_pairs import ExtractedPairs, extract_pairs
from vpr_dhe.training.held_out import HeldOut
from vpr_dhe.training.rei import InlierMatches, has_agreement, rei_loss, reprojection_errors_of_inliers
from vpr_dhe.training.sources import TrainingData
from vpr_dhe.training.sources.base import Draws
from vpr_dhe.training.stage import Batches, Fact, Stage, StepLoss, Turn, Validation
from vpr_dhe.verification.estimators.dhe import GRID, HEAD_NAME, INPUT_SIZE, DheHead, load_head


@dataclass(frozen=True)
class DheSettings:
    """Hyperparameters of `dhe`.

    Args:
        warmup_steps: initial steps with known homographies and corner error, before REI.
        batch_size: pairs per step and process.
        learning_rate: initial learning rate of Adam.
        decay: factor of the learning rate every `decay_steps` steps.
        decay_steps: see `decay`.
        corner_limit_px: saturation of the corner error in the warm-up; see `corner_error_loss`.
        min_inliers: minimum K for a pair to count in REI; well above the number of chance inliers of MAGSAC between
            images of different places.
        seed: seed of the head's initial weights and of the order of the data.
        validation_pairs: maximum number of validation pairs.
    """

    warmup_steps: int = 5000
    batch_size: int = 16
    learning_rate: float = 1e-4
    decay: float = 0.8
    decay_steps: int = 10_000
    corner_limit_px: float = 100.0
    min_inliers: int = 16
    seed: int = 0
    validation_pairs: int = 64


class HeadBatch(NamedTuple):
    """Pairs; `by_corners` says whether they belong to the warm-up."""

    pairs: ExtractedPairs
    by_corners: bool


class DheBatches(Batches[HeadBatch]):
    """Batches of features of warped pairs during the warm-up, then of positives."""

    def __init__(self, data: TrainingData, extractor: Extractor, settings: DheSettings) -> None:
        self._warps, self._positives = Draws(data.warps, settings.seed), Draws(data.positives, settings.seed)
        self._extractor, self._settings = extractor, settings

    def batch(self, turn: Turn) -> HeadBatch:
        """Load the pairs of a turn and extract their features."""
        warming_up = turn.step < self._settings.warmup_steps
        draws, size = (self._warps if warming_up else self._positives), self._settings.batch_size
        first = (turn.step * turn.processes + turn.process) * size
        pairs = [draws.pair(number) for number in range(first, first + size)]
        return HeadBatch(extract_pairs(pairs, self._extractor, INPUT_SIZE), warming_up)


class DheStage(Stage[HeadBatch]):
    """Training of a DHE head, from the head of the extractor's model file if it has one.

    Args:
        extractor: frozen extractor of the local maps; the head is added to its model file.
        data: pairs for training and validation.
        settings: hyperparameters.
        training_data: images and their licences, for the model file.
        head: initial head; by default that of the model, or a new one.

    Raises:
        ModelError: if the local maps do not have 24 x 24 cells.
    """

    def __init__(
        self,
        extractor: Extractor,
        data: TrainingData,
        settings: DheSettings,
        *,
        training_data: str,
        head: DheHead | None = None,
    ) -> None:
        super().__init__()
        require_grid(extractor.spec.grid, extractor.spec.model)
        self._base, self._settings, self._training_data = require_weights(extractor.model_file), settings, training_data
        self._held_out = HeldOut(
            data.validation,
            settings.seed,
            max_pairs=settings.validation_pairs,
            batch_size=settings.batch_size,
            prepare=partial(extract_pairs, extractor=extractor, input_size=INPUT_SIZE),
        )
        self.head = head or first_head(self._base, settings.seed)
        self.batches = DheBatches(data, extractor, settings)
        self.facts: Mapping[str, Fact] = {
            "stage": HEAD_NAME,
            "extractor": extractor.spec.fingerprint,
            "warps": data.warps.description,
            "positives": data.positives.description,
            **asdict(settings),
        }

    def optimizer(self) -> torch.optim.Optimizer:
        """Adam, as published."""
        return torch.optim.Adam(self.head.parameters(), lr=self._settings.learning_rate)

    def learning_rate_factor(self, step: int) -> float:
        """Step decay, as published."""
        return self._settings.decay ** (step // self._settings.decay_steps)

    def forward(self, batch: HeadBatch) -> StepLoss:
        """Corner error during the warm-up, then REI; degenerate predictions are dropped."""
        predicted = self._predict(batch.pairs)
        usable = {"usable": predicted.usable.float().mean()}
        if batch.by_corners:
            truth = batch.pairs.homographies[predicted.usable]
            loss = corner_error_loss(predicted.homographies, truth, INPUT_SIZE, self._settings.corner_limit_px)
            return StepLoss(loss, {**usable, "corner_loss_px": loss.detach()})
        matches = _of_pairs(batch.pairs.matches, predicted.usable)
        loss = rei_loss(predicted.homographies, matches, self._settings.min_inliers)
        agreeing = has_agreement(matches, self._settings.min_inliers).float().sum() / len(predicted.usable)
        return StepLoss(loss, {**usable, "rei_px": loss.detach(), "agreeing": agreeing})

    def validate(self) -> Validation:
        """Corner error if homographies are known, else REI."""
        batches = [to_device(batch, self.head.pe.device) for batch in self._held_out.batches(self.preparation)]
        parts = [(self._predict(batch), batch) for batch in batches]
        return _score(parts, self._settings)

    def model_file(self) -> ModelFile:
        """The extractor's model file with this head."""
        model = self._base.with_head(HEAD_NAME, self.head.state_dict())
        return replace(model, training_data=f"{model.training_data}; head: {self._training_data}")

    def _predict(self, pairs: ExtractedPairs) -> PredictedHomographies:
        points = self.head(pairs.query_maps, pairs.candidate_maps)
        return predicted_homographies(points.query, points.candidate)


def require_grid(grid: Grid, model: str) -> None:
    """Check that the local maps of a model have the cells that a DHE head takes.

    Raises:
        ModelError: if they do not.
    """
    if grid != GRID:
        raise ModelError(
            f"local maps of model {model!r} have {grid.rows} x {grid.columns} cells; a DHE head needs "
            f"{GRID.rows} x {GRID.columns}"
        )


def first_head(base: ModelFile, seed: int) -> DheHead:
    """The head of a model, or a new one."""
    if base.architecture.head == HEAD_NAME:
        return deepcopy(load_head(base))  # training must not modify the base's tensors
    return new_head(seed)


def new_head(seed: int, grid: Grid = GRID) -> DheHead:
    """Make a head that predicts nearly the identity.

    Its output bias is the corners of both images, at 0 and 384 in the published coordinates, whose origin is the corner
    of the image and not the centre of its first pixel.
    """
    with seeded(seed):
        head = DheHead(grid)
    width, height = INPUT_SIZE
    with torch.no_grad():
        head.linear.bias.copy_(torch.tensor([0, 0, width, 0, width, height, 0, height] * 2))
    return head


def _score(parts: list[tuple[PredictedHomographies, ExtractedPairs]], settings: DheSettings) -> Validation:
    """Median corner error if any homography is known, else median REI; degenerate predictions count as infinite."""
    corner_errors_px, rei_px, degenerate = list[float](), list[float](), 0
    for predicted, pairs in parts:
        known = pairs.known[predicted.usable]
        errors = mean_corner_error(
            predicted.homographies[known], pairs.homographies[predicted.usable][known], _square(pairs)
        )
        corner_errors_px += errors.tolist() + [torch.inf] * int((pairs.known & ~predicted.usable).sum())
        agreeing = has_agreement(pairs.matches, settings.min_inliers)
        matches = _of_pairs(pairs.matches, predicted.usable)
        errors = reprojection_errors_of_inliers(predicted.homographies, matches)
        rei_px += errors[agreeing[predicted.usable]].tolist()
        degenerate += int((agreeing & ~predicted.usable).sum())
    scalars = {"usable": fmean(float(predicted.usable.float().mean()) for predicted, _ in parts)}
    if corner_errors_px:
        scalars["median_corner_error_px"] = median(corner_errors_px)
    if rei_px:
        scalars["rei_px"] = fmean(rei_px)
    if rei_px or degenerate:
        scalars["median_rei_px"] = median([*rei_px, *[torch.inf] * degenerate])
    return Validation(scalars.get("median_corner_error_px", scalars.get("median_rei_px", torch.inf)), scalars)


def _square(pairs: ExtractedPairs) -> Float64[Tensor, "4 2"]:
    return corners(INPUT_SIZE).to(pairs.homographies.device)


def _of_pairs(matches: InlierMatches, chosen: Bool[Tensor, " pairs"]) -> InlierMatches:
    return InlierMatches(*(part[chosen] for part in matches))
