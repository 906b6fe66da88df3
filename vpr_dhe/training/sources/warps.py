"""Warped image pairs: two views of one image under a random homography, in different lighting."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from vpr_dhe.datasets.augmentation import warped_views
from vpr_dhe.images.decoding import decode_named
from vpr_dhe.records import Size
from vpr_dhe.training.sources.base import PairSource, TrainingPair


class WarpedImages(PairSource):
    """Pairs of views in the network's input size, for which their homographies are exact; see `warped_views`."""

    knows_homographies = True

    def __init__(self, paths: Sequence[Path], view_size: Size, description: str) -> None:
        self.paths, self.view_size, self.description = tuple(paths), view_size, description

    def __len__(self) -> int:
        return len(self.paths)

    def pair(self, index: int, random: np.random.Generator) -> TrainingPair:
        """Make two views of an image."""
        views = warped_views(decode_named(self.paths[index]), self.view_size, random)
        places = frozenset([str(self.paths[index])])
        return TrainingPair(*views, places, holds_everywhere=True)
