"""Rounds: sets of pairs whose matches are extracted before training on them."""

from collections.abc import Callable, Iterator
from typing import NamedTuple

from vpr_dhe.errors import DatasetError
from vpr_dhe.features.base import Extractor
from vpr_dhe.records import Matches, Progress
from vpr_dhe.training.dhe_lite.matched_pairs import (
    MatchedPairs,
    different_partners,
    extract_all,
    matches_between,
    with_fitted_homographies,
    with_nothing_in_common,
    with_true_homographies,
)
from vpr_dhe.training.dhe_lite.settings import DheLiteSettings
from vpr_dhe.training.preparation import Preparation
from vpr_dhe.training.sources import TrainingData
from vpr_dhe.training.sources.base import Draws, TrainingPair

# Pairs whose local maps are in memory at the same time; negatives are combined from them.
PAIRS_AT_ONCE = 32


class Drawn(NamedTuple):
    """Number of pairs drawn from each source so far."""

    warps: int
    positives: int


class RoundBuilder:
    """Builder of rounds from the training data."""

    def __init__(self, extractor: Extractor, data: TrainingData, settings: DheLiteSettings) -> None:
        self._extractor, self._data, self._settings = extractor, data, settings

    def build_round(self, drawn: Drawn, warming_up: bool, preparation: Preparation) -> tuple[MatchedPairs, Drawn]:
        """Build the next round after the pairs drawn so far.

        Raises:
            TimeLimitError: if the time limit ends during preparation.
            DatasetError: if no pair has enough matches that agree with a homography.
        """
        count, size = self._settings.pairs_per_round, self._extractor.spec.input_size
        known = count if warming_up or self._knows_all() else round(self._settings.known_share * count)
        advance = preparation.begin("pairs of the next round", count)
        parts = [
            *self._parts(Draws(self._data.warps, self._settings.seed), drawn.warps, known, self._known, advance),
            *self._parts(
                Draws(self._data.positives, self._settings.seed),
                drawn.positives,
                count - known,
                lambda _, matches: with_fitted_homographies(matches, size, self._settings.min_inliers),
                advance,
            ),
        ]
        pairs = MatchedPairs.joined(parts)
        if not len(pairs.counts):
            raise DatasetError(
                f"none of the {count} pairs has enough matches that agree with a homography; give other images, or a "
                "smaller number of inliers"
            )
        return pairs, Drawn(drawn.warps + known, drawn.positives + count - known)

    def _knows_all(self) -> bool:
        """Whether all homographies are known: without a place data set, positives are warps."""
        return self._data.positives.knows_homographies and self._settings.known_share > 0

    def _known(self, pairs: list[TrainingPair], matches: list[Matches]) -> MatchedPairs:
        return with_true_homographies(pairs, matches, self._extractor.spec.input_size)

    def _parts(
        self,
        draws: Draws,
        first: int,
        count: int,
        labelled: Callable[[list[TrainingPair], list[Matches]], MatchedPairs],
        advance: Progress,
    ) -> Iterator[MatchedPairs]:
        """Yield pairs and negatives of one source, in batches."""
        spec = self._extractor.spec
        for start in range(first, first + count, PAIRS_AT_ONCE):
            numbers = range(start, min(start + PAIRS_AT_ONCE, first + count))
            pairs = []
            for number in numbers:
                pairs.append(draws.pair(number))
                advance(1)
            queries, candidates = extract_all(pairs, self._extractor)
            of_pairs = [matches_between(*both, spec) for both in zip(queries, candidates, strict=True)]
            yield labelled(pairs, of_pairs)
            partners = different_partners([pair.places for pair in pairs], self._settings.negatives, start)
            apart = [matches_between(queries[query], candidates[other], spec) for query, other in partners]
            yield with_nothing_in_common(apart, spec.input_size)
