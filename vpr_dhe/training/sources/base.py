"""Training pairs, their sources, and the order in which they are drawn."""

from abc import ABC, abstractmethod
from bisect import bisect_right
from collections.abc import Sequence, Set
from dataclasses import dataclass
from functools import lru_cache
from itertools import accumulate
from typing import TypeVar

import numpy as np
import torch
from jaxtyping import Bool, Float32, Float64, Int64
from torch import Tensor

from vpr_dhe.errors import DatasetError
from vpr_dhe.records import Image

HELD_OUT = 10
"""Every tenth item is held out for validation."""

Item = TypeVar("Item")


def hold_out(items: Sequence[Item]) -> tuple[list[Item], list[Item]]:
    """Split items into those to train on and, every tenth, those to validate with."""
    return [item for number, item in enumerate(items) if number % HELD_OUT], list(items[::HELD_OUT])


@dataclass(frozen=True)
class TrainingPair:
    """Two decoded images of one place.

    Args:
        image_a: first image.
        image_b: second image.
        homography: maps pixels of A to pixels of B, with H[2, 2] = 1; None if unknown.
        places: names of the known places in the images; two pairs with a common name may show the same place.
        holds_everywhere: whether the homography holds for all of A, not just for one surface.
        residual_px: displacement before the homography, which maps a pixel x of A from x + residual_px(x).
        matches: corresponding pixels (x, y) of A and of B, if no homography holds everywhere.
    """

    image_a: Image
    image_b: Image
    homography: Float64[np.ndarray, "3 3"] | None = None
    places: frozenset[str] = frozenset()
    holds_everywhere: bool = False
    residual_px: Float32[np.ndarray, "height width 2"] | None = None
    matches: Float64[np.ndarray, "matches 4"] | None = None


@dataclass(frozen=True)
class TrainingGroup:
    """Decoded images of one place; `places` are as in `TrainingPair`."""

    images: tuple[Image, ...]
    places: frozenset[str] = frozenset()


def same_place_mask(places: Sequence[Set[str]]) -> Bool[Tensor, "pairs pairs"]:
    """Mask of pairs or groups that may show the same place: their names of places have one in common."""
    return torch.tensor([[not one.isdisjoint(other) for other in places] for one in places])


def others_of_place(same_place: Bool[Tensor, "pairs pairs"]) -> Bool[Tensor, "pairs pairs"]:
    """Mask of other pairs that may show the same place, without each pair itself."""
    return same_place.clone().fill_diagonal_(fill_value=False)


class PairSource(ABC):
    """Fixed number of pairs, each of which may be different every time it is made.

    `knows_homographies` says whether every pair has one; `description` summarises the images; `members` is the maximum
    number of images in a group. Sources contain only paths and numbers, so that they can be copied to loading
    processes.
    """

    knows_homographies: bool
    description: str
    members: int = 2

    @abstractmethod
    def __len__(self) -> int:
        """Number of pairs in an epoch."""

    @abstractmethod
    def pair(self, index: int, random: np.random.Generator) -> TrainingPair:
        """Make a pair; all randomness comes from `random`.

        Raises:
            ImageError: if a file cannot be read.
        """

    def group(self, index: int, random: np.random.Generator, members: int) -> TrainingGroup:
        """Make a group of `members` images of one place, at most those of the source; by default the pair.

        Raises:
            ImageError: if a file cannot be read.
        """
        assert members == self.members == 2, "sources of larger groups make their own"
        pair = self.pair(index, random)
        return TrainingGroup((pair.image_a, pair.image_b), pair.places)


class JoinedPairs(PairSource):
    """Pairs of several sources, concatenated.

    Raises:
        DatasetError: if there are no pairs.
    """

    def __init__(self, sources: Sequence[PairSource]) -> None:
        self._sources = tuple(sources)
        self._ends = tuple(accumulate(len(source) for source in self._sources))
        if not self._ends or not self._ends[-1]:
            raise DatasetError("there are no image pairs to train on; give more data")
        self.knows_homographies = all(source.knows_homographies for source in self._sources)
        self.members = min(source.members for source in self._sources)
        self.description = "; ".join(source.description for source in self._sources)

    def __len__(self) -> int:
        return self._ends[-1]

    def pair(self, index: int, random: np.random.Generator) -> TrainingPair:
        """Make a pair of its source."""
        source, index_in_source = self._located(index)
        return source.pair(index_in_source, random)

    def group(self, index: int, random: np.random.Generator, members: int) -> TrainingGroup:
        """Make a group of its source."""
        source, index_in_source = self._located(index)
        return source.group(index_in_source, random, members)

    def _located(self, index: int) -> tuple[PairSource, int]:
        number = bisect_right(self._ends, index)
        start = self._ends[number - 1] if number else 0
        return self._sources[number], index - start


class SomePairs(PairSource):
    """Subset of the pairs of a source, by index."""

    def __init__(self, source: PairSource, indices: Sequence[int]) -> None:
        self._source, self._indices = source, tuple(indices)
        self.knows_homographies = source.knows_homographies
        self.description, self.members = source.description, source.members

    def __len__(self) -> int:
        return len(self._indices)

    def pair(self, index: int, random: np.random.Generator) -> TrainingPair:
        """Make a pair of the source."""
        return self._source.pair(self._indices[index], random)

    def group(self, index: int, random: np.random.Generator, members: int) -> TrainingGroup:
        """Make a group of the source."""
        return self._source.group(self._indices[index], random, members)


@dataclass(frozen=True)
class Draws:
    """Endless sequence of pairs: epochs of a source, each in a different order.

    A pair depends only on the seed, the epoch and its position in the epoch, not on previous draws, the process, or
    interruptions.
    """

    source: PairSource
    seed: int

    def pair(self, number: int) -> TrainingPair:
        """The pair at a position of the sequence, from 0."""
        return self.source.pair(*self._drawn(number))

    def group(self, number: int, members: int) -> TrainingGroup:
        """The group of `members` images at a position of the sequence, from 0."""
        return self.source.group(*self._drawn(number), members)

    def _drawn(self, number: int) -> tuple[int, np.random.Generator]:
        epoch, position = divmod(number, len(self.source))
        index = int(order_of_epoch(self.seed, epoch, len(self.source))[position])
        return index, np.random.default_rng((self.seed, 1, epoch, index))


@lru_cache(maxsize=4)
def order_of_epoch(seed: int, epoch: int, count: int) -> Int64[np.ndarray, " count"]:
    """Order of the items in an epoch. The array is cached and shared; do not write to it."""
    return np.random.default_rng((seed, 0, epoch)).permutation(count)
