"""Stage `ransac-flow`: trains the fine network on pairs aligned by the coarse stage, without labels.

Source: Shen et al., "RANSAC-Flow: generic two-stage image alignment", ECCV 2020, section 3.2: 150 epochs of
reconstruction, 50 with the cycle, 50 with matchability; Adam, 2e-4, batches of 16.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from functools import partial
from statistics import fmean
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from vpr_dhe.features.base import Extractor
from vpr_dhe.models.network_file import NetworkFile, network_file
from vpr_dhe.runtime.seeding import seeded
from vpr_dhe.training.devices import to_device
from vpr_dhe.training.held_out import HeldOut
from vpr_dhe.training.ransac_flow.coarse_crops import CropBatch, CropSettings, coarse_crops
from vpr_dhe.training.ransac_flow.elastic import ElasticPairs
from vpr_dhe.training.ransac_flow.fine_alignment import MATCHABILITY_WEIGHT, Phase, fine_alignment_loss, known_flow_loss
from vpr_dhe.training.run_folder import network_facts
from vpr_dhe.training.sources import TrainingData
from vpr_dhe.training.sources.base import Draws
from vpr_dhe.training.stage import Batches, Fact, Stage, StepLoss, Turn, Validation
from vpr_dhe.verification.estimators.ransac_flow import NAME
from vpr_dhe.verification.estimators.ransac_flow.network import (
    MAX_FLOW_PX,
    PUBLISHED,
    Fine,
    FineNetwork,
    FineOptions,
    FineSettings,
)


@dataclass(frozen=True)
class RansacFlowTraining:
    """Hyperparameters of `ransac-flow`.

    Args:
        warmup_steps: initial steps on known flows of distorted warps, because the phases of the paper converge slowly
            from random weights.
        cycle_from: first step with the cycle loss.
        matchability_from: first step with the matchability loss.
        batch_size: pairs per step and process; those without a coarse alignment are dropped.
        learning_rate: learning rate of Adam.
        matchability_weight: maximum sum of the other terms of a matchable pixel; see `fine_alignment`.
        crops: parameters of crops.
        network: shape and options of the network.
        seed: seed of the network's weights and of the order of the data.
        validation_pairs: maximum number of validation pairs.
    """

    warmup_steps: int = 5000
    cycle_from: int = 30_000
    matchability_from: int = 40_000
    batch_size: int = 16
    learning_rate: float = 2e-4
    matchability_weight: float = MATCHABILITY_WEIGHT
    crops: CropSettings = field(default_factory=CropSettings)
    network: FineSettings = PUBLISHED
    seed: int = 0
    validation_pairs: int = 64


class FineBatch(NamedTuple):
    """Crops and the phase they are used in."""

    crops: CropBatch
    phase: int


class RansacFlowBatches(Batches[FineBatch]):
    """Batches of distorted warps, then of coarsely aligned pairs of one place."""

    def __init__(self, warmup: Draws, draws: Draws, extractor: Extractor, settings: RansacFlowTraining) -> None:
        self._warmup, self._draws, self._extractor, self._settings = warmup, draws, extractor, settings

    def batch(self, turn: Turn) -> FineBatch:
        """Load the pairs of a turn and align them."""
        size = self._settings.batch_size
        first = (turn.step * turn.processes + turn.process) * size
        phase = self._phase(turn.step)
        draws = self._warmup if phase is Phase.known_flow else self._draws
        pairs = [draws.pair(number) for number in range(first, first + size)]
        random = np.random.default_rng((self._settings.seed, 2, first))
        return FineBatch(coarse_crops(pairs, self._extractor, self._settings.crops, random), phase)

    def _phase(self, step: int) -> Phase:
        if step < self._settings.warmup_steps:
            return Phase.known_flow
        if step < self._settings.cycle_from:
            return Phase.reconstruction
        return Phase.cycle if step < self._settings.matchability_from else Phase.matchability


class RansacFlowStage(Stage[FineBatch]):
    """Training of a fine network from random weights.

    Args:
        extractor: frozen extractor of the coarse stage.
        data: pairs for training and validation; those with homographies that hold everywhere are distorted.
        settings: hyperparameters.
        training_data: images and their licences, for the network file.
    """

    def __init__(
        self, extractor: Extractor, data: TrainingData, settings: RansacFlowTraining, *, training_data: str
    ) -> None:
        super().__init__()
        self._settings, self._training_data = settings, training_data
        with seeded(settings.seed):
            self.network = FineNetwork(settings.network)
        warps, positives = ElasticPairs(data.warps), ElasticPairs(data.positives)
        draws = (Draws(warps, settings.seed), Draws(positives, settings.seed))
        self.batches = RansacFlowBatches(*draws, extractor, settings)
        self._held_out = HeldOut(
            ElasticPairs(data.validation),
            settings.seed,
            max_pairs=settings.validation_pairs,
            batch_size=settings.batch_size,
            prepare=partial(coarse_crops, extractor=extractor, settings=settings.crops),
        )
        facts = {**asdict(settings), **asdict(settings.crops), **network_facts(settings.network, FineOptions)}
        facts["least_covered"] = facts.pop("min_covered")  # the name in stored runs
        self.facts: Mapping[str, Fact] = {
            "stage": NAME,
            "extractor": extractor.spec.fingerprint,
            "warps": warps.description,
            "positives": positives.description,
            **{name: value for name, value in facts.items() if not isinstance(value, dict)},
        }

    def optimizer(self) -> torch.optim.Optimizer:
        """Adam, as published."""
        return torch.optim.Adam(self.network.parameters(), lr=self._settings.learning_rate, betas=(0.5, 0.999))

    def forward(self, batch: FineBatch) -> StepLoss:
        """Loss of the phase, in both directions after the warm-up; 0 if no pair could be aligned."""
        crops = batch.crops
        if not len(crops.source):
            zero = sum(parameter.sum() for parameter in self.network.parameters()) * torch.zeros(())
            return StepLoss(torch.as_tensor(zero), {"pairs": torch.zeros(())})
        phase = Phase(int(batch.phase))
        forward, backward = self.network(crops.source, crops.target)
        if phase is Phase.known_flow:
            loss, scalars = self._known_flow_loss(crops, forward)
        else:
            loss, scalars = self._alignment_loss(crops, forward, backward, phase)
        return StepLoss(loss, {**scalars, "pairs": torch.tensor(float(len(crops.source)))})

    def _known_flow_loss(self, crops: CropBatch, forward: Fine) -> tuple[Float[Tensor, ""], dict[str, Tensor]]:
        counted = _within_reach(crops)
        loss = known_flow_loss(forward, crops.flow_px, counted[:, None].float())
        distances_px = torch.linalg.vector_norm(forward.flow_px.detach() - crops.flow_px, dim=1)
        error_px = (distances_px * counted).sum() / counted.sum().clamp(min=1)
        return loss, {"known_flow": loss.detach(), "end_point_error_px": error_px}

    def _alignment_loss(
        self, crops: CropBatch, forward: Fine, backward: Fine, phase: Phase
    ) -> tuple[Float[Tensor, ""], dict[str, Tensor]]:
        """Mean of both directions."""
        terms = [
            fine_alignment_loss(crops.source, crops.target, forward, backward, crops.covered, phase),
            fine_alignment_loss(crops.target, crops.source, backward, forward, crops.covered, phase),
        ]
        loss = torch.stack([one.total(phase, self._settings.matchability_weight) for one in terms]).mean()
        scalars = {
            name: torch.stack([getattr(one, name).detach() for one in terms]).mean() for name in terms[0]._fields
        }
        return loss, scalars

    def validate(self) -> Validation:
        """Loss of the last phase, which has all terms; the end-point error is logged."""
        device = next(self.network.parameters()).device
        held_out = self._held_out.batches(self.preparation)
        found = [self._measure(to_device(crops, device)) for crops in held_out if len(crops.source)]
        names = sorted({name for one in found for name in one})
        scalars = {name: fmean(one[name] for one in found if name in one) for name in names}
        return Validation(scalars.get("loss", torch.inf), scalars)

    def model_file(self) -> NetworkFile:
        """The current fine network."""
        return network_file(NAME, self._settings.network, self.network, training_data=self._training_data)

    def _measure(self, crops: CropBatch) -> dict[str, float]:
        forward, backward = self.network(crops.source, crops.target)
        loss = fine_alignment_loss(crops.source, crops.target, forward, backward, crops.covered, Phase.matchability)
        counted = _within_reach(crops)
        scalars = {
            "loss": float(loss.total(Phase.matchability, self._settings.matchability_weight)),
            "matchability": float(forward.matchability[crops.covered.bool()].mean()),
        }
        if bool(counted.any()):
            scalars["end_point_error_px"] = _mean_length(forward.flow_px - crops.flow_px, counted)
            scalars["coarse_end_point_error_px"] = _mean_length(crops.flow_px, counted)
        return scalars


def _within_reach(crops: CropBatch) -> Bool[Tensor, "pairs height width"]:
    """Mask of known flow within the search range of the network, which a wrong coarse alignment exceeds."""
    short = crops.flow_px.abs().amax(dim=1) <= MAX_FLOW_PX
    return short & crops.covered[:, 0].bool() & crops.known


def _mean_length(vectors: Float[Tensor, "pairs 2 height width"], counted: Bool[Tensor, "pairs height width"]) -> float:
    return float(torch.linalg.vector_norm(vectors, dim=1)[counted].mean())
