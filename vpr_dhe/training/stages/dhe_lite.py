"""The stage `dhe-lite`: the network that weighs matches, on those of an extractor that stays as it is.

The network sees matches alone, so describing two images costs a hundred times what learning from them does. Therefore
training goes in rounds: pairs are described, their matches are kept, and learned from for some epochs.

Known homographies tell which matches are right, and how far a fit is off. Of photographs of one place nobody knows the
homography; there the matches that MAGSAC keeps stand in for the right ones, by REI (Lu et al., "Deep Homography
Estimation for Visual Place Recognition", AAAI 2024) and by distillation. All matches between images of different pairs
are wrong.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from math import cos, pi
from statistics import fmean, median
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Float32, Float64, Int64
from torch import Tensor

from vpr_dhe.errors import DatasetError
from vpr_dhe.estimators.base import MIN_MATCHES, Homographies
from vpr_dhe.estimators.dhe_lite import (
    HEAD_NAME,
    UNIT,
    DheLiteEstimator,
    DheLiteHead,
    MatchBatch,
    batch_matches,
    fit_homographies,
    load_head,
)
from vpr_dhe.features.base import Extractor, ExtractorSpec
from vpr_dhe.geometry.coordinates import corners, resizing
from vpr_dhe.geometry.homography import mean_corner_error
from vpr_dhe.models.model_file import ModelFile
from vpr_dhe.records import Matches
from vpr_dhe.training.losses.match_confidence import (
    REFERENCE,
    balanced_cross_entropy,
    in_reference,
    inliers_in_reference,
    mean_where,
    opinions,
    saturating_fit_error,
    saturating_rei,
    tolerances_off,
)
from vpr_dhe.training.losses.rei import has_agreement, reprojection_errors_of_inliers
from vpr_dhe.training.matched_pairs import (
    Kind,
    MatchedPairs,
    describe_all,
    different_partners,
    magsac_between_units,
    matches_between,
    padded_batch,
    starts_of,
    true_between_units,
    views_of,
    with_fitted_homographies,
    with_nothing_in_common,
    with_true_homographies,
)
from vpr_dhe.training.sources import TrainingData
from vpr_dhe.training.sources.base import Draws, TrainingPair, order_of_epoch
from vpr_dhe.training.stages.base import Batches, Fact, Stage, StepLoss, Turn, Validation

# Pairs whose local maps are in memory at a time; negatives are put together among them.
_DESCRIBED_AT_ONCE = 32
# Fewer right matches do not say where the homography puts the corners.
_LEAST_RIGHT = 6
# The error of a fit that weighs as much as a unit of cross-entropy.
_PX_PER_UNIT = 20.0
_FIRST_STEPS = 50
_LEAST_RATE = 0.01
# Mirrors a `UNIT` frame, the centres of whose two columns lie at 0 and 1.
_MIRROR = torch.tensor([[-1.0, 0.0, 1.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]], dtype=torch.float64)


@dataclass(frozen=True)
class DheLiteSettings:
    """What decides how a head comes out, besides its data.

    Args:
        warmup_steps: steps on known homographies alone; the round in which they end is finished first.
        known_share: of a round after the warm-up; the rest are pairs of place data sets. With 0, what comes after the
            warm-up knows no homography at all, not even where the data do.
        batch_size: pairs, negatives among them, per step and process.
        learning_rate: of Adam, at its height.
        decay_steps: steps after which the rate has sunk, along a cosine, to a hundredth, where it stays.
        pairs_per_round: pairs that are described before they are learned from.
        epochs_per_round: how often a round is learned from, each time mirrored and thinned out anew.
        negatives: pairs of images of different places, per pair of a round.
        rei_weight: of REI, in units of 20 px; the cross-entropy of known pairs weighs 1.
        distillation_weight: of the cross-entropy towards the matches that MAGSAC keeps.
        min_inliers: least K of a pair of unknown homography; see `DheSettings`.
        max_matches: of a pair in a batch. Street views have about a hundred; more cost time, and look easier.
        max_dropped: up to which share of a pair's matches is left out of a batch at random.
        seed: of the head's initial weights, the data, their order and what is left out.
        validation_pairs: how many pairs are validated with, at most.
    """

    warmup_steps: int = 5000
    known_share: float = 0.5
    batch_size: int = 32
    learning_rate: float = 2e-3
    decay_steps: int = 10_000
    pairs_per_round: int = 1024
    epochs_per_round: int = 8
    negatives: float = 0.6
    rei_weight: float = 1.0
    distillation_weight: float = 1.0
    min_inliers: int = 16
    max_matches: int = 100
    max_dropped: float = 0.3
    seed: int = 0
    validation_pairs: int = 200


class LiteBatch(NamedTuple):
    """Pairs of all kinds; see `MatchedPairs` for what their homographies are."""

    matches: MatchBatch
    homographies: Float64[Tensor, "pairs 3 3"]
    kinds: Int64[Tensor, " pairs"]


class DheLiteBatches(Batches[LiteBatch]):
    """The pairs of a round, shuffled in each epoch; every time mirrored or not, and without some of the matches."""

    def __init__(self, spec: ExtractorSpec, settings: DheLiteSettings) -> None:
        cell_px = max(spec.input_size.width / spec.grid.columns, spec.input_size.height / spec.grid.rows)
        to_unit = resizing(spec.input_size, UNIT).diagonal()[:2]
        self._tolerance, self._settings = spec.tolerance_cells * cell_px * to_unit, settings
        self.pairs = MatchedPairs.joined([])

    @property
    def pairs(self) -> MatchedPairs:
        """What is learned from."""
        return self._pairs

    @pairs.setter
    def pairs(self, pairs: MatchedPairs) -> None:
        self._pairs, self._starts = pairs, starts_of(pairs.counts)

    def batch(self, turn: Turn) -> LiteBatch:
        """Take the pairs of a turn."""
        size = self._settings.batch_size
        first = (turn.step * turn.processes + turn.process) * size
        drawn = [self._draw(number) for number in range(first, first + size)]
        points, homographies, kinds = zip(*drawn, strict=True)
        return LiteBatch(padded_batch(points, self._tolerance), torch.stack(homographies), torch.stack(kinds))

    def _draw(self, number: int) -> tuple[Tensor, Tensor, Tensor]:
        """One pair of the endless row of epochs, which depends on the round, the seed and its place alone."""
        epoch, place = divmod(number, len(self._pairs.counts))
        pair = int(order_of_epoch(self._settings.seed, epoch, len(self._pairs.counts))[place])
        random = np.random.default_rng((self._settings.seed, 2, number))
        points = self._thinned(self._pairs.points[self._starts[pair] : self._starts[pair + 1]], random)
        homography = self._pairs.homographies[pair]
        if random.random() < 0.5:
            points, homography = mirrored(points, homography)
        return points, homography, self._pairs.kinds[pair]

    def _thinned(self, points: Float32[Tensor, "matches 5"], random: np.random.Generator) -> Float32[Tensor, "kept 5"]:
        most = min(len(points), self._settings.max_matches)
        kept = max(MIN_MATCHES, round(most * (1 - random.uniform(0, self._settings.max_dropped))))
        return points[torch.from_numpy(random.permutation(len(points))[:kept])]


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
        self._base, self._settings, self._training_data = extractor.model_file, settings, training_data
        self._describer = _Describer(extractor, data, settings)
        self._validation = _Validation(extractor, data, settings)
        self._drawn = _Drawn(0, 0)
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
        cosine = _LEAST_RATE + (1 - _LEAST_RATE) * (0.5 + 0.5 * cos(pi * done))
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
        self._drawn = _Drawn(*columns.pop("drawn").tolist())
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
        told = (batch.kinds == Kind.true) & (right.sum(dim=1) >= _LEAST_RIGHT)
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


def mirrored(
    points: Float32[Tensor, "matches 5"], homography: Float64[Tensor, "3 3"]
) -> tuple[Float32[Tensor, "matches 5"], Float64[Tensor, "3 3"]]:
    """What the matches and their homography are where both images are seen in a mirror."""
    flipped = points.clone()
    flipped[:, [0, 2]] = 1 - flipped[:, [0, 2]]
    return flipped, _MIRROR @ homography @ _MIRROR


def _of_pairs(batch: MatchBatch, chosen: Bool[Tensor, " pairs"]) -> MatchBatch:
    return MatchBatch(*(part[chosen] for part in batch))


class _Drawn(NamedTuple):
    """How many pairs have been drawn from each source."""

    warps: int
    positives: int


class _Describer:
    """Makes rounds."""

    def __init__(self, extractor: Extractor, data: TrainingData, settings: DheLiteSettings) -> None:
        self._extractor, self._data, self._settings = extractor, data, settings

    def describe_round(self, drawn: _Drawn, warming_up: bool) -> tuple[MatchedPairs, _Drawn]:
        """The pairs that come after those that were drawn."""
        count, size = self._settings.pairs_per_round, self._extractor.spec.input_size
        known = count if warming_up or self._knows_all() else round(self._settings.known_share * count)
        parts = [
            *self._parts(Draws(self._data.warps, self._settings.seed), drawn.warps, known, self._known),
            *self._parts(
                Draws(self._data.positives, self._settings.seed),
                drawn.positives,
                count - known,
                lambda _, matches: with_fitted_homographies(matches, size, self._settings.min_inliers),
            ),
        ]
        pairs = MatchedPairs.joined(parts)
        if not len(pairs.counts):
            raise DatasetError(
                f"of {count} pairs none has enough matches that agree with a homography; give other images, or a "
                "smaller number of inliers"
            )
        return pairs, _Drawn(drawn.warps + known, drawn.positives + count - known)

    def _knows_all(self) -> bool:
        """Where there is no place data set, positives are warps as well."""
        return self._data.positives.knows_homographies and self._settings.known_share > 0

    def _known(self, pairs: list[TrainingPair], matches: list[Matches]) -> MatchedPairs:
        return with_true_homographies(pairs, matches, self._extractor.spec.input_size)

    def _parts(
        self,
        draws: Draws,
        first: int,
        count: int,
        labelled: Callable[[list[TrainingPair], list[Matches]], MatchedPairs],
    ) -> Iterator[MatchedPairs]:
        """Pairs and negatives of one source, some images at a time."""
        spec = self._extractor.spec
        for start in range(first, first + count, _DESCRIBED_AT_ONCE):
            numbers = range(start, min(start + _DESCRIBED_AT_ONCE, first + count))
            pairs = [draws.pair(number) for number in numbers]
            queries, candidates = describe_all(pairs, self._extractor)
            of_pairs = [matches_between(*both, spec) for both in zip(queries, candidates, strict=True)]
            yield labelled(pairs, of_pairs)
            partners = different_partners([pair.places for pair in pairs], self._settings.negatives, start)
            apart = [matches_between(queries[query], candidates[other], spec) for query, other in partners]
            yield with_nothing_in_common(apart, spec.input_size)


@dataclass(frozen=True)
class _HeldOut:
    """Matches of held-out pairs, their homographies where they are known, and what MAGSAC makes of them."""

    matches: list[Matches]
    truths: Float64[Tensor, "pairs 3 3"]
    known: Bool[Tensor, " pairs"]
    magsac: Homographies


class _Validation:
    """Held-out pairs, described once and kept."""

    def __init__(self, extractor: Extractor, data: TrainingData, settings: DheLiteSettings) -> None:
        self._draws, self._extractor, self._settings = Draws(data.validation, settings.seed), extractor, settings
        self._count = min(settings.validation_pairs, len(data.validation))
        self._held_out: _HeldOut | None = None

    def measure(self, head: DheLiteHead) -> Validation:
        """Compare what the verifier would make of these pairs, with this head and with MAGSAC."""
        held_out = self._held_out = self._held_out or self._describe()
        query, candidates = views_of(held_out.matches, self._extractor.spec.input_size)
        found = DheLiteEstimator(head).estimate(query, candidates)
        own, magsac = (self._errors(held_out, homographies) for homographies in (found, held_out.magsac))
        scalars = {**own, **{f"magsac_{name}": value for name, value in magsac.items()}}
        return Validation(own.get("median_corner_error_px", own.get("rei_px", torch.inf)), scalars)

    def _errors(self, held_out: _HeldOut, found: Homographies) -> dict[str, float]:
        """The median corner error, in which what failed is infinitely wrong, and REI without what failed."""
        scalars = {}
        if held_out.known.any():
            estimates, truths = in_reference(found.matrices), in_reference(held_out.truths)
            errors_px = mean_corner_error(estimates, truths, corners(REFERENCE)).masked_fill(~found.valid, torch.inf)
            scalars["median_corner_error_px"] = median(errors_px[held_out.known].tolist())
        rei_px = self._rei_px(held_out, found)
        if rei_px:
            scalars["rei_px"] = fmean(rei_px)
        return scalars

    def _rei_px(self, held_out: _HeldOut, found: Homographies) -> list[float]:
        """Of the pairs in which MAGSAC finds agreement."""
        batch = batch_matches(*views_of(held_out.matches, self._extractor.spec.input_size))
        kept = (tolerances_off(held_out.magsac.matrices, batch) < 1) & held_out.magsac.valid[:, None]
        matches = inliers_in_reference(batch, kept)
        counted = has_agreement(matches, self._settings.min_inliers) & found.valid
        return reprojection_errors_of_inliers(in_reference(found.matrices), matches)[counted].tolist()

    def _describe(self) -> _HeldOut:
        pairs, matches = [], []
        for first in range(0, self._count, _DESCRIBED_AT_ONCE):
            numbers = range(first, min(first + _DESCRIBED_AT_ONCE, self._count))
            drawn = [self._draws.pair(number) for number in numbers]
            features = zip(*describe_all(drawn, self._extractor), strict=True)
            matches += [matches_between(*both, self._extractor.spec) for both in features]
            pairs += [(pair.homography is not None, true_between_units(pair)) for pair in drawn]
        return _HeldOut(
            matches,
            torch.stack([truth for _, truth in pairs]),
            torch.tensor([known for known, _ in pairs]),
            magsac_between_units(matches, self._extractor.spec.input_size),
        )
