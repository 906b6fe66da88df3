"""Held-out pairs: drawn and prepared once, and kept for every validation."""

from collections.abc import Callable
from functools import cached_property
from typing import Generic, TypeVar

from vpr_dhe.training.sources.base import Draws, PairSource, TrainingPair

Prepared = TypeVar("Prepared")


class HeldOut(Generic[Prepared]):
    """The first pairs of a source, prepared in batches on first use.

    Args:
        source: pairs to validate with.
        seed: of their order.
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

    @cached_property
    def batches(self) -> list[Prepared]:
        """All prepared batches."""
        starts = range(0, self._count, self._batch_size)
        return [self._prepare(self._pairs(first)) for first in starts]

    def _pairs(self, first: int) -> list[TrainingPair]:
        return [self._draws.pair(number) for number in range(first, min(first + self._batch_size, self._count))]
