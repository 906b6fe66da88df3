"""Pairs of any source, each image in a random light of its own."""

from dataclasses import replace

import numpy as np
import torch

from vpr_dhe.images import to_network_input
from vpr_dhe.records import Image, Preprocessing
from vpr_dhe.training.random_views import relit
from vpr_dhe.training.sources.base import PairSource, TrainingPair


class RelitPairs(PairSource):
    """The pairs of a source, made as large as the network's input and lit anew every time.

    Light is changed at the size at which the network sees it, which takes a fraction of the time that photos would.
    Homographies are not kept: they would be those of other sizes.
    """

    knows_homographies = False

    def __init__(self, source: PairSource, preprocessing: Preprocessing) -> None:
        self._source, self.description = source, f"{source.description}, in random light"
        self._unscaled = replace(preprocessing, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))

    def __len__(self) -> int:
        return len(self._source)

    def pair(self, index: int, random: np.random.Generator) -> TrainingPair:
        """Make a pair of the source, and light its images."""
        pair = self._source.pair(index, random)
        image_a, image_b = (relit(self._small(image), random) for image in (pair.image_a, pair.image_b))
        return replace(pair, image_a=image_a, image_b=image_b, homography=None)

    def _small(self, image: Image) -> Image:
        pixels = to_network_input([image], self._unscaled, torch.device("cpu"))[0].permute(1, 2, 0).numpy()
        return np.rint(255 * pixels.clip(0, 1)).astype(np.uint8)
