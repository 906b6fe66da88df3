"""Pairs of any source with random light in each image."""

from dataclasses import replace

import numpy as np
import torch

from vpr_dhe.datasets.augmentation import relit
from vpr_dhe.images.preprocessing import to_network_input
from vpr_dhe.records import Image, Preprocessing
from vpr_dhe.training.sources.base import PairSource, TrainingGroup, TrainingPair


class RelitPairs(PairSource):
    """Pairs of a source, resized to the network's input and relit at random each time.

    Lighting is changed at the size of the network's input, which is much faster than on full-size images. Homographies
    are dropped, because they refer to other sizes.
    """

    knows_homographies = False

    def __init__(self, source: PairSource, preprocessing: Preprocessing) -> None:
        self._source, self.description = source, f"{source.description}, in random light"
        self.members = source.members
        self._unscaled = replace(preprocessing, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))

    def __len__(self) -> int:
        return len(self._source)

    def group(self, index: int, random: np.random.Generator, members: int) -> TrainingGroup:
        """Make a group of the source and relight its images."""
        group = self._source.group(index, random, members)
        return replace(group, images=tuple(relit(self._small(image), random) for image in group.images))

    def pair(self, index: int, random: np.random.Generator) -> TrainingPair:
        """Make a pair of the source and relight its images."""
        pair = self._source.pair(index, random)
        image_a, image_b = (relit(self._small(image), random) for image in (pair.image_a, pair.image_b))
        return replace(pair, image_a=image_a, image_b=image_b, homography=None)

    def _small(self, image: Image) -> Image:
        pixels = to_network_input([image], self._unscaled, torch.device("cpu"))[0].permute(1, 2, 0).numpy()
        return np.rint(255 * pixels.clip(0, 1)).astype(np.uint8)
