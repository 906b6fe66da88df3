"""Stage `dhe-lite`: trains a network that weights matches, on matches of a frozen extractor.

Extracting matches is far more expensive than training on them. Training therefore proceeds in rounds: the matches of a
number of pairs are extracted and used for several epochs.

Known homographies give labels of matches and the error of a fit. For images of one place with unknown homography, the
inliers of MAGSAC are the labels, for REI (Lu et al., "Deep Homography Estimation for Visual Place Recognition", AAAI
2024) and for distillation. All matches between images of different places are labelled wrong.
"""

from collections.abc import Mapping
from dataclasses import asdict, replace

import torch
from jaxtyping import Bool, Float, Float64
from torch import Tensor

from vpr_dhe.features.base import Extractor
from vpr_dhe.models.exported_model import require_weights
from vpr_dhe.models.model_file import ModelFile
from vpr_dhe.runtime.seeding import seeded
from vpr_dhe.training.dhe_lite.batches import DheLiteBatches, LiteBatch
from vpr_dhe.training.dhe_lite.match_confidence import (
    balanced_cross_entropy,
    clearly_labelled,
    mean_where,
    saturating_fit_error,
    saturating_rei,
    tolerances_off,
)
from vpr_dhe.training.dhe_lite.matched_pairs import (
    Kind,
    MatchedPairs,
)
from vpr_dhe.training.dhe_lite.rounds import Drawn, RoundBuilder
from vpr_dhe.training.dhe_lite.settings import DheLiteSettings
from vpr_dhe.training.dhe_lite.validation import MatchedValidation
from vpr_dhe.training.schedules import warm_cosine_decay
from vpr_dhe.training.sources import TrainingData
from vpr_dhe.training.stage import Fact, Stage, StepLoss, Validation
from vpr_dhe.verification.estimators.dhe_lite import (
    HEAD_NAME,
    DheLiteHead,
    MatchBatch,
    fit_homographies,
    load_head,
)

# Fewer correct matches do not determine the corners.
_MIN_RIGHT = 6
# Fit error that weighs as much as one unit of cross-entropy.
_PX_PER_UNIT = 20.0


class DheLiteStage(Stage[LiteBatch]):
    """Training of a dhe-lite head, from the head of the extractor's model file if it has one.

    Args:
        extractor: frozen extractor of the local maps; the head is added to its model file.
        data: pairs for training and validation.
        settings: hyperparameters.
        training_data: images and their licences, for the model file.
    """

    def __init__(
        self, extractor: Extractor, data: TrainingData, settings: DheLiteSettings, *, training_data: str
    ) -> None:
        super().__init__()
        self._base, self._settings, self._training_data = require_weights(extractor.model_file), settings, training_data
        self._rounds = RoundBuilder(extractor, data, settings)
        self._validation = MatchedValidation(extractor, data, settings)
        self._drawn = Drawn(0, 0)
        self.head = first_head(self._base, settings.seed)
        self._round = DheLiteBatches(extractor.spec, settings)
        self.batches = self._round
        self.facts: Mapping[str, Fact] = {
            "stage": HEAD_NAME,
            "extractor": extractor.spec.fingerprint,
            "tolerance_cells": extractor.spec.tolerance_cells,
            "warps": data.warps.description,
            "positives": data.positives.description,
            **asdict(settings),
        }

    def optimizer(self) -> torch.optim.Optimizer:
        """Adam; the network is small, so the learning rate is high."""
        return torch.optim.Adam(self.head.parameters(), lr=self._settings.learning_rate)

    def learning_rate_factor(self, step: int) -> float:
        """Linear warm-up over 50 steps, then cosine decay."""
        return warm_cosine_decay(step, self._settings.decay_steps)

    def steps_per_round(self, processes: int) -> int:
        """Steps for all epochs of a round in which all pairs are usable."""
        in_round = round(self._settings.pairs_per_round * (1 + self._settings.negatives))
        return max(1, self._settings.epochs_per_round * in_round // (self._settings.batch_size * processes))

    def begin_round(self, step: int) -> None:
        """Extract the pairs after those of the last round.

        Raises:
            DatasetError: if none of them is usable.
        """
        warming_up = step < self._settings.warmup_steps
        self._round.pairs, self._drawn = self._rounds.build_round(self._drawn, warming_up, self.preparation)

    def get_extra_state(self) -> dict[str, Tensor]:
        """Matches of this round, and the number of pairs drawn so far."""
        return {**self._round.pairs._asdict(), "drawn": torch.tensor(self._drawn)}

    def set_extra_state(self, state: dict[str, Tensor]) -> None:
        """Restore the matches of a round."""
        columns = dict(state)
        self._drawn = Drawn(*columns.pop("drawn").tolist())
        self._round.pairs = MatchedPairs(**columns)

    def forward(self, batch: LiteBatch) -> StepLoss:
        """Cross-entropy and fit error for known homographies, distillation and REI for the others."""
        logits = self.head(batch.matches)
        off = tolerances_off(batch.homographies, batch.matches)
        unrelated = (batch.kinds == Kind.none)[:, None]
        right = batch.matches.present & (off < 1) & ~unrelated
        counted = torch.where(unrelated, batch.matches.present, clearly_labelled(off, batch.matches.present))
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
        """Mean fit error of the pairs with known homographies."""
        known = (batch.kinds == Kind.true) & (right.sum(dim=1) >= _MIN_RIGHT)
        if not known.any():
            return known.new_zeros((), dtype=torch.float64)
        matches = _of_pairs(batch.matches, known)
        fits = fit_homographies(matches, logits[known])
        return saturating_fit_error(fits, batch.homographies[known], matches.query, right[known]).mean()

    def _rei_px(
        self, batch: LiteBatch, logits: Float[Tensor, "pairs matches"], right: Bool[Tensor, "pairs matches"]
    ) -> Float64[Tensor, ""]:
        """Mean REI of the pairs of one place."""
        fitted = batch.kinds == Kind.fitted
        if not fitted.any():
            return fitted.new_zeros((), dtype=torch.float64)
        matches = _of_pairs(batch.matches, fitted)
        return saturating_rei(fit_homographies(matches, logits[fitted]), matches, right[fitted]).mean()

    def validate(self) -> Validation:
        """Corner error if homographies are known, else REI; both also for MAGSAC on the same matches."""
        return self._validation.measure(self.head, self.preparation)

    def model_file(self) -> ModelFile:
        """The extractor's model file with this head."""
        model = self._base.with_head(HEAD_NAME, self.head.state_dict())
        return replace(model, training_data=f"{model.training_data}; head: {self._training_data}")


def first_head(base: ModelFile, seed: int) -> DheLiteHead:
    """Return the head of a model if it is of this kind, else a new one."""
    if base.architecture.head == HEAD_NAME:
        return load_head(base)
    with seeded(seed):
        return DheLiteHead()


def _of_pairs(batch: MatchBatch, chosen: Bool[Tensor, " pairs"]) -> MatchBatch:
    return MatchBatch(*(part[chosen] for part in batch))
