"""Held-out pairs, prepared once for all validations."""

from collections.abc import Callable
from typing import Generic, TypeVar

from vpr_dhe.records import Progress
from vpr_dhe.training.preparation import Preparation
from vpr_dhe.training.sources.base import Draws, PairSource, TrainingPair

Prepared = TypeVar("Prepared")


class HeldOut(Generic[Prepared]):
    """The first pairs of a source, prepared in batches on first use.

    Args:
        source: source of the pairs.
        seed: seed of their order.
        max_pairs: maximum number of pairs.
        batch_size: pairs prepared together.
        prepare: converts pairs into a batch of the stage.
    """

    def __init__(
        self,
        source: PairSource,
        seed: int,
        *,
        max_pairs: int,
        batch_size: int,
        prepare: Callable[[list[TrainingPair]], Prepared],
    ) -> None:
        self._draws, self._count = Draws(source, seed), min(max_pairs, len(source))
        self._batch_size, self._prepare = batch_size, prepare
        self._batches: list[Prepared] | None = None

    def batches(self, preparation: Preparation) -> list[Prepared]:
        """All batches, prepared on the first call.

        Raises:
            TimeLimitError: if the time limit ends during preparation.
        """
        if self._batches is None:
            advance = preparation.begin("held-out pairs", self._count)
            starts = range(0, self._count, self._batch_size)
            self._batches = [self._prepare(self._pairs(first, advance)) for first in starts]
        return self._batches

    def _pairs(self, first: int, advance: Progress) -> list[TrainingPair]:
        pairs = []
        for number in range(first, min(first + self._batch_size, self._count)):
            pairs.append(self._draws.pair(number))
            advance(1)
        return pairs
