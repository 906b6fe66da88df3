"""What a training pair is, where pairs come from, and in which order they are drawn."""

from abc import ABC, abstractmethod
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import accumulate

import numpy as np
from jaxtyping import Float32, Float64, Int64

from vpr_dhe.errors import DatasetError
from vpr_dhe.records import Image


@dataclass(frozen=True)
class TrainingPair:
    """Two decoded images of one place.

    `homography` maps pixels of A to pixels of B, with H[2, 2] = 1; None where it is not known. It may hold for one
    surface of A alone, unless `holds_everywhere`. With a `residual_px`, a pixel x of A lies where the homography maps
    x + residual_px(x). `places` names what is seen, as far as that is known: two pairs that
    have a name in common may show one place.
    """

    image_a: Image
    image_b: Image
    homography: Float64[np.ndarray, "3 3"] | None = None
    places: frozenset[str] = frozenset()
    holds_everywhere: bool = False
    residual_px: Float32[np.ndarray, "height width 2"] | None = None


class PairSource(ABC):
    """A fixed number of pairs, each of which may look different every time it is asked for.

    `knows_homographies` tells whether every pair has one; `description` says in a few words what the images are.
    Sources hold paths and numbers alone, so that loading processes can be given a copy.
    """

    knows_homographies: bool
    description: str

    @abstractmethod
    def __len__(self) -> int:
        """How many pairs there are in an epoch."""

    @abstractmethod
    def pair(self, index: int, random: np.random.Generator) -> TrainingPair:
        """Make a pair; what is random about it comes from `random` alone.

        Raises:
            ImageError: if a file cannot be read.
        """


class JoinedPairs(PairSource):
    """The pairs of several sources, one source after the other.

    Raises:
        DatasetError: if there is no pair.
    """

    def __init__(self, sources: Sequence[PairSource]) -> None:
        self._sources = tuple(sources)
        self._ends = tuple(accumulate(len(source) for source in self._sources))
        if not self._ends or not self._ends[-1]:
            raise DatasetError("there is no pair of images to learn from; give more data")
        self.knows_homographies = all(source.knows_homographies for source in self._sources)
        self.description = "; ".join(source.description for source in self._sources)

    def __len__(self) -> int:
        return self._ends[-1]

    def pair(self, index: int, random: np.random.Generator) -> TrainingPair:
        """Make a pair of the source that it belongs to."""
        number = bisect_right(self._ends, index)
        start = self._ends[number - 1] if number else 0
        return self._sources[number].pair(index - start, random)


class SomePairs(PairSource):
    """Some of the pairs of a source, by their numbers in it."""

    def __init__(self, source: PairSource, indices: Sequence[int]) -> None:
        self._source, self._indices = source, tuple(indices)
        self.knows_homographies = source.knows_homographies
        self.description = source.description

    def __len__(self) -> int:
        return len(self._indices)

    def pair(self, index: int, random: np.random.Generator) -> TrainingPair:
        """Make a pair of the source."""
        return self._source.pair(self._indices[index], random)


@dataclass(frozen=True)
class Draws:
    """An endless row of pairs: one epoch of a source after the other, each in an order of its own.

    The pair at a place of an epoch depends on the seed, the epoch and the place alone, and not on what was drawn
    before, by which process, or how often training was interrupted.
    """

    source: PairSource
    seed: int

    def pair(self, number: int) -> TrainingPair:
        """The pair at a place in the row, which begins at 0."""
        epoch, place = divmod(number, len(self.source))
        index = int(order_of_epoch(self.seed, epoch, len(self.source))[place])
        return self.source.pair(index, np.random.default_rng((self.seed, 1, epoch, index)))


@lru_cache(maxsize=4)
def order_of_epoch(seed: int, epoch: int, count: int) -> Int64[np.ndarray, " count"]:
    """In which order so many things are drawn in an epoch; shared between callers, so not to be written to."""
    return np.random.default_rng((seed, 0, epoch)).permutation(count)
