"""Sets of image pairs with known homographies, and their layouts in folders."""

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

    Images are decoded on each call, which raises ImageError if they are damaged. `group` is a subset that is reported
    separately, such as "viewpoint", or an empty string.
    """

    name: str
    group: str
    image_a: Callable[[], Image]
    image_b: Callable[[], Image]
    homography: Float64[np.ndarray, "3 3"]


@dataclass(frozen=True)
class PairSet:
    """Pairs for the evaluation of alignment; `protocol` describes them in words.

    Raises:
        DatasetError: if there are no pairs, or two have the same name.
    """

    name: str
    protocol: str
    pairs: tuple[HomographyPair, ...]

    def __post_init__(self) -> None:
        if not self.pairs:
            raise DatasetError(f"{self.name} holds no image pairs; expected at least one")
        name, count = Counter(pair.name for pair in self.pairs).most_common(1)[0]
        if count > 1:
            raise DatasetError(f"{self.name} has {count} pairs named {name!r}; give each pair its own name")

    def limited(self, count: int) -> "PairSet":
        """Copy with at most `count` evenly spaced pairs, for quick tests, not for published figures."""
        total = len(self.pairs)
        if count >= total:
            return self
        pairs = tuple(self.pairs[number] for number in evenly_spread(total, count, with_last=False))
        return PairSet(self.name, f"{self.protocol}, only {count} of {total} pairs", pairs)


@dataclass(frozen=True)
class PairLayout:
    """Layout of pair sets in folders; `expected` describes it in a few words.

    `recognises` checks the names in a folder; `read` raises DatasetError if the folder does not have the layout.
    """

    name: str
    expected: str
    recognises: Callable[[Path], bool]
    read: Callable[[Path], PairSet]


def true_homography(matrix: Float64[np.ndarray, "3 3"], source: str) -> Float64[np.ndarray, "3 3"]:
    """Scale a homography to H[2, 2] = 1.

    Raises:
        DatasetError: if it is not an invertible homography; the message begins with `source`.
    """
    if not np.isfinite(matrix).all() or matrix[2, 2] == 0:
        raise DatasetError(f"{source}: the homography must be finite, and its last entry not 0; correct its numbers")
    scaled = matrix / matrix[2, 2]
    if not is_usable(torch.from_numpy(scaled)):
        raise DatasetError(f"{source}: the homography is singular, so it collapses the image; correct its numbers")
    return scaled
