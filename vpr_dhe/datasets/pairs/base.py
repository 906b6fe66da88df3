"""What a set of image pairs with known homographies is, and how one is laid out in folders."""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float64

from vpr_dhe.errors import DatasetError
from vpr_dhe.geometry.homography import is_usable
from vpr_dhe.records import Image
from vpr_dhe.runtime.sampling import evenly_spread


@dataclass(frozen=True)
class HomographyPair:
    """Two images and the homography that maps pixels of A to pixels of B, with H[2, 2] = 1.

    The images are decoded when they are asked for, and not kept; one that is damaged raises ImageError then. `group`
    is the part of the set that the pair is also reported with, such as "viewpoint", or empty.
    """

    name: str
    group: str
    image_a: Callable[[], Image]
    image_b: Callable[[], Image]
    homography: Float64[np.ndarray, "3 3"]


@dataclass(frozen=True)
class PairSet:
    """Pairs to measure alignment on; `protocol` says in words how they were made.

    Raises:
        DatasetError: if there is no pair, or two have the same name.
    """

    name: str
    protocol: str
    pairs: tuple[HomographyPair, ...]

    def __post_init__(self) -> None:
        if not self.pairs:
            raise DatasetError(f"{self.name} holds no image pairs; expected at least one")
        name, count = Counter(pair.name for pair in self.pairs).most_common(1)[0]
        if count > 1:
            raise DatasetError(f"{self.name} has {count} pairs named {name!r}; give each pair a name of its own")

    def limited(self, count: int) -> "PairSet":
        """At most this many of the pairs, spread evenly: for a quick look, and never for a figure."""
        total = len(self.pairs)
        if count >= total:
            return self
        pairs = tuple(self.pairs[number] for number in evenly_spread(total, count, with_last=False))
        return PairSet(self.name, f"{self.protocol}, only {count} of {total} pairs", pairs)


@dataclass(frozen=True)
class PairLayout:
    """One way in which pair sets lie in folders; `expected` says in a few words how.

    `recognises` tells by the names in a folder whether it has this layout; `read` raises DatasetError if it has not.
    """

    name: str
    expected: str
    recognises: Callable[[Path], bool]
    read: Callable[[Path], PairSet]


def true_homography(matrix: Float64[np.ndarray, "3 3"], source: str) -> Float64[np.ndarray, "3 3"]:
    """Scale a homography to H[2, 2] = 1.

    Raises:
        DatasetError: if it is no homography between pixels; the message begins with `source`.
    """
    if not np.isfinite(matrix).all() or matrix[2, 2] == 0:
        raise DatasetError(f"{source}: the homography must be finite, and its last entry not 0; correct its numbers")
    scaled = matrix / matrix[2, 2]
    if not is_usable(torch.from_numpy(scaled)):
        raise DatasetError(f"{source}: the homography is singular, so it collapses the image; correct its numbers")
    return scaled
