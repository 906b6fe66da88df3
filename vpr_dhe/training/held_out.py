"""Pairs that are never learned from: drawn and described once, and kept for every validation."""

from collections.abc import Callable
from functools import cached_property
from typing import Generic, TypeVar

from vpr_dhe.training.sources.base import Draws, PairSource, TrainingPair

Described = TypeVar("Described")


class HeldOut(Generic[Described]):
    """The first pairs of a source, described some at a time when they are first asked for.

    Args:
        source: of pairs to validate with.
        seed: of their order.
        most: how many there are at most.
        at_once: how many are described together.
        describe: what a stage makes of pairs.
    """

    def __init__(
        self,
        source: PairSource,
        seed: int,
        *,
        most: int,
        at_once: int,
        describe: Callable[[list[TrainingPair]], Described],
    ) -> None:
        self._draws, self._count = Draws(source, seed), min(most, len(source))
        self._at_once, self._describe = at_once, describe

    @cached_property
    def batches(self) -> list[Described]:
        """All of them."""
        starts = range(0, self._count, self._at_once)
        return [self._describe(self._pairs(first)) for first in starts]

    def _pairs(self, first: int) -> list[TrainingPair]:
        return [self._draws.pair(number) for number in range(first, min(first + self._at_once, self._count))]
