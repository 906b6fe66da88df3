"""The stage `dhe-lite`: the network that weighs matches, on those of an extractor that stays as it is.

The network sees matches alone, so describing two images costs a hundred times what learning from them does. Therefore
training goes in rounds: pairs are described, their matches are kept, and learned from for some epochs.

Known homographies tell which matches are right, and how far a fit is off. Of photographs of one place nobody knows the
homography; there the matches that MAGSAC keeps stand in for the right ones, by REI (Lu et al., "Deep Homography
Estimation for Visual Place Recognition", AAAI 2024) and by distillation. All matches between images of different pairs
are wrong.
"""

from collections.abc import Mapping
from dataclasses import asdict, replace
from math import cos, pi

import torch
from jaxtyping import Bool, Float, Float64
from torch import Tensor

from vpr_dhe.features.base import Extractor
from vpr_dhe.models.exported_model import require_weights
from vpr_dhe.models.model_file import ModelFile
from vpr_dhe.training.dhe_lite.batches import DheLiteBatches, LiteBatch
from vpr_dhe.training.dhe_lite.match_confidence import (
    balanced_cross_entropy,
    mean_where,
    opinions,
    saturating_fit_error,
    saturating_rei,
    tolerances_off,
)
from vpr_dhe.training.dhe_lite.matched_pairs import (
    Kind,
    MatchedPairs,
)
from vpr_dhe.training.dhe_lite.rounds import Drawn, RoundDescriber
from vpr_dhe.training.dhe_lite.settings import DheLiteSettings
from vpr_dhe.training.dhe_lite.validation import MatchedValidation
from vpr_dhe.training.sources import TrainingData
from vpr_dhe.training.stage import Fact, Stage, StepLoss, Validation
from vpr_dhe.verification.estimators.dhe_lite import (
    HEAD_NAME,
    DheLiteHead,
    MatchBatch,
    fit_homographies,
    load_head,
)

# Fewer right matches do not say where the homography puts the corners.
_MIN_RIGHT = 6
# The error of a fit that weighs as much as a unit of cross-entropy.
_PX_PER_UNIT = 20.0
_FIRST_STEPS = 50
_MIN_RATE = 0.01


class DheLiteStage(Stage[LiteBatch]):
    """Trains a dhe-lite head; one that the extractor's model file already holds is trained further.

    Args:
        extractor: what describes the images; its model file is the base of the result.
        data: pairs to learn from and to validate with.
        settings: see there.
        training_data: what the images are and their licences, for the model file.
    """

    def __init__(
        self, extractor: Extractor, data: TrainingData, settings: DheLiteSettings, *, training_data: str
    ) -> None:
        super().__init__()
        self._base, self._settings, self._training_data = require_weights(extractor.model_file), settings, training_data
        self._describer = RoundDescriber(extractor, data, settings)
        self._validation = MatchedValidation(extractor, data, settings)
        self._drawn = Drawn(0, 0)
        self.head = first_head(self._base, settings.seed)
        self._learned = DheLiteBatches(extractor.spec, settings)
        self.batches = self._learned
        self.facts: Mapping[str, Fact] = {
            "stage": HEAD_NAME,
            "extractor": extractor.spec.fingerprint,
            "tolerance_cells": extractor.spec.tolerance_cells,
            "warps": data.warps.description,
            "positives": data.positives.description,
            **asdict(settings),
        }

    def optimizer(self) -> torch.optim.Optimizer:
        """Adam; the learned fit is small, and wants a high rate."""
        return torch.optim.Adam(self.head.parameters(), lr=self._settings.learning_rate)

    def learning_rate_factor(self, step: int) -> float:
        """Up in 50 steps, then down along a cosine."""
        done = min(1.0, step / self._settings.decay_steps)
        cosine = _MIN_RATE + (1 - _MIN_RATE) * (0.5 + 0.5 * cos(pi * done))
        return min(1.0, (step + 1) / _FIRST_STEPS) * cosine

    def steps_per_round(self, processes: int) -> int:
        """Until a round has been learned from as often as wanted, if none of its pairs is left out."""
        in_round = round(self._settings.pairs_per_round * (1 + self._settings.negatives))
        return max(1, self._settings.epochs_per_round * in_round // (self._settings.batch_size * processes))

    def begin_round(self, step: int) -> None:
        """Describe the pairs that come after those of the last round.

        Raises:
            DatasetError: if not one of them can be learned from.
        """
        self._learned.pairs, self._drawn = self._describer.describe_round(
            self._drawn, step < self._settings.warmup_steps
        )

    def get_extra_state(self) -> dict[str, Tensor]:
        """The matches of this round, and how many pairs were described until its end."""
        return {**self._learned.pairs._asdict(), "drawn": torch.tensor(self._drawn)}

    def set_extra_state(self, state: dict[str, Tensor]) -> None:
        """Learn from these matches."""
        columns = dict(state)
        self._drawn = Drawn(*columns.pop("drawn").tolist())
        self._learned.pairs = MatchedPairs(**columns)

    def forward(self, batch: LiteBatch) -> StepLoss:
        """Cross-entropy and error of the fits where matches are known, distillation and REI where they are not."""
        logits = self.head(batch.matches)
        off = tolerances_off(batch.homographies, batch.matches)
        unrelated = (batch.kinds == Kind.none)[:, None]
        right = batch.matches.present & (off < 1) & ~unrelated
        counted = torch.where(unrelated, batch.matches.present, opinions(off, batch.matches.present))
        entropy = balanced_cross_entropy(logits, right, counted)
        terms = {
            "cross_entropy": mean_where(entropy, batch.kinds != Kind.fitted),
            "fit_error_px": self._fit_error_px(batch, logits, right),
            "distillation": mean_where(entropy, batch.kinds == Kind.fitted),
            "rei_px": self._rei_px(batch, logits, right),
        }
        loss = (
            terms["cross_entropy"]
            + terms["fit_error_px"] / _PX_PER_UNIT
            + self._settings.distillation_weight * terms["distillation"]
            + self._settings.rei_weight * terms["rei_px"] / _PX_PER_UNIT
        )
        return StepLoss(loss, {name: value.detach() for name, value in terms.items()})

    def _fit_error_px(
        self, batch: LiteBatch, logits: Float[Tensor, "pairs matches"], right: Bool[Tensor, "pairs matches"]
    ) -> Float64[Tensor, ""]:
        """Of pairs with known homographies."""
        told = (batch.kinds == Kind.true) & (right.sum(dim=1) >= _MIN_RIGHT)
        if not told.any():
            return told.new_zeros((), dtype=torch.float64)
        matches = _of_pairs(batch.matches, told)
        fits = fit_homographies(matches, logits[told])
        return saturating_fit_error(fits, batch.homographies[told], matches.query, right[told]).mean()

    def _rei_px(
        self, batch: LiteBatch, logits: Float[Tensor, "pairs matches"], right: Bool[Tensor, "pairs matches"]
    ) -> Float64[Tensor, ""]:
        """Of pairs of one place."""
        fitted = batch.kinds == Kind.fitted
        if not fitted.any():
            return fitted.new_zeros((), dtype=torch.float64)
        matches = _of_pairs(batch.matches, fitted)
        return saturating_rei(fit_homographies(matches, logits[fitted]), matches, right[fitted]).mean()

    def validate(self) -> Validation:
        """Corner error where homographies are known, else REI; both also of MAGSAC on the same matches."""
        return self._validation.measure(self.head)

    def model_file(self) -> ModelFile:
        """The extractor's file with this head in the place of any other."""
        model = self._base.with_head(HEAD_NAME, self.head.state_dict())
        return replace(model, training_data=f"{model.training_data}; head: {self._training_data}")


def first_head(base: ModelFile, seed: int) -> DheLiteHead:
    """The head of a model, if it is of this kind, or a new one."""
    if base.architecture.head == HEAD_NAME:
        return load_head(base)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return DheLiteHead()


def _of_pairs(batch: MatchBatch, chosen: Bool[Tensor, " pairs"]) -> MatchBatch:
    return MatchBatch(*(part[chosen] for part in batch))
