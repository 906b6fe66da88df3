"""Validation of a head on held-out pairs, with MAGSAC as baseline."""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean, median

import torch
from jaxtyping import Bool, Float64
from torch import Tensor

from vpr_dhe.features.base import Extractor
from vpr_dhe.geometry.coordinates import corners
from vpr_dhe.geometry.homography import mean_corner_error
from vpr_dhe.records import Matches
from vpr_dhe.training.dhe_lite.match_confidence import (
    REFERENCE,
    in_reference,
    inliers_in_reference,
    tolerances_off,
)
from vpr_dhe.training.dhe_lite.matched_pairs import (
    extract_all,
    magsac_between_units,
    matches_between,
    true_between_units,
    views_of,
)
from vpr_dhe.training.dhe_lite.rounds import PAIRS_AT_ONCE
from vpr_dhe.training.dhe_lite.settings import DheLiteSettings
from vpr_dhe.training.held_out import HeldOut
from vpr_dhe.training.preparation import Preparation
from vpr_dhe.training.rei import has_agreement, reprojection_errors_of_inliers
from vpr_dhe.training.sources import TrainingData
from vpr_dhe.training.sources.base import TrainingPair
from vpr_dhe.training.stage import Validation
from vpr_dhe.verification.estimators.base import Homographies
from vpr_dhe.verification.estimators.dhe_lite import (
    DheLiteEstimator,
    DheLiteHead,
    batch_matches,
)


@dataclass(frozen=True)
class _Matched:
    """Matches of held-out pairs, their homographies if known, and MAGSAC's estimates."""

    matches: list[Matches]
    truths: Float64[Tensor, "pairs 3 3"]
    known: Bool[Tensor, " pairs"]
    magsac: Homographies

    @classmethod
    def joined(cls, parts: Sequence["_Matched"]) -> "_Matched":
        """All pairs of the parts."""
        return cls(
            [matches for part in parts for matches in part.matches],
            torch.cat([part.truths for part in parts]),
            torch.cat([part.known for part in parts]),
            Homographies(
                torch.cat([part.magsac.matrices for part in parts]), torch.cat([part.magsac.valid for part in parts])
            ),
        )


class MatchedValidation:
    """Held-out pairs, matched once and cached."""

    def __init__(self, extractor: Extractor, data: TrainingData, settings: DheLiteSettings) -> None:
        self._extractor, self._settings = extractor, settings
        self._held_out = HeldOut(
            data.validation,
            settings.seed,
            max_pairs=settings.validation_pairs,
            batch_size=PAIRS_AT_ONCE,
            prepare=self._match,
        )

    def measure(self, head: DheLiteHead, preparation: Preparation) -> Validation:
        """Measure the verifier's estimates with this head and with MAGSAC.

        Raises:
            TimeLimitError: if the time limit ends during preparation.
        """
        held_out = _Matched.joined(self._held_out.batches(preparation))
        query, candidates = views_of(held_out.matches, self._extractor.spec.input_size)
        found = DheLiteEstimator(head).estimate(query, candidates)
        own, magsac = (self._errors(held_out, homographies) for homographies in (found, held_out.magsac))
        scalars = {**own, **{f"magsac_{name}": value for name, value in magsac.items()}}
        return Validation(own.get("median_corner_error_px", own.get("median_rei_px", torch.inf)), scalars)

    def _errors(self, held_out: _Matched, found: Homographies) -> dict[str, float]:
        """Median corner error and REI of pairs with enough inliers, both with infinity for failed estimates.

        The mean REI is that of the estimates that did not fail.
        """
        scalars = {}
        if held_out.known.any():
            estimates, truths = in_reference(found.matrices), in_reference(held_out.truths)
            errors_px = mean_corner_error(estimates, truths, corners(REFERENCE)).masked_fill(~found.valid, torch.inf)
            scalars["median_corner_error_px"] = median(errors_px[held_out.known].tolist())
        rei_px = self._rei_px(held_out, found)
        if rei_px:
            scalars["median_rei_px"] = median(rei_px)
        if finite := [one for one in rei_px if one < torch.inf]:
            scalars["rei_px"] = fmean(finite)
        return scalars

    def _rei_px(self, held_out: _Matched, found: Homographies) -> list[float]:
        """REI of the pairs with enough inliers of MAGSAC; infinite for failed estimates."""
        batch = batch_matches(*views_of(held_out.matches, self._extractor.spec.input_size))
        kept = (tolerances_off(held_out.magsac.matrices, batch) < 1) & held_out.magsac.valid[:, None]
        matches = inliers_in_reference(batch, kept)
        errors = reprojection_errors_of_inliers(in_reference(found.matrices), matches)
        errors = errors.masked_fill(~found.valid, torch.inf)
        return errors[has_agreement(matches, self._settings.min_inliers)].tolist()

    def _match(self, pairs: list[TrainingPair]) -> _Matched:
        features = zip(*extract_all(pairs, self._extractor), strict=True)
        matches = [matches_between(*both, self._extractor.spec) for both in features]
        return _Matched(
            matches,
            torch.stack([true_between_units(pair) for pair in pairs]),
            torch.tensor([pair.homography is not None for pair in pairs]),
            magsac_between_units(matches, self._extractor.spec.input_size),
        )
