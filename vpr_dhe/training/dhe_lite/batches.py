"""Batches of the pairs of a round."""

from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float32, Float64, Int64
from torch import Tensor

from vpr_dhe.features.base import ExtractorSpec
from vpr_dhe.geometry.coordinates import resizing
from vpr_dhe.training.dhe_lite.matched_pairs import (
    MatchedPairs,
    padded_batch,
    starts_of,
)
from vpr_dhe.training.dhe_lite.settings import DheLiteSettings
from vpr_dhe.training.sources.base import order_of_epoch
from vpr_dhe.training.stage import Batches, Turn
from vpr_dhe.verification.estimators.base import MIN_MATCHES
from vpr_dhe.verification.estimators.dhe_lite import (
    UNIT,
    MatchBatch,
)

# Mirrors a `UNIT` frame, with its two columns centred at 0 and 1.
_MIRROR = torch.tensor([[-1.0, 0.0, 1.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]], dtype=torch.float64)


class LiteBatch(NamedTuple):
    """Pairs of all kinds; `homographies` as in `MatchedPairs`."""

    matches: MatchBatch
    homographies: Float64[Tensor, "pairs 3 3"]
    kinds: Int64[Tensor, " pairs"]


class DheLiteBatches(Batches[LiteBatch]):
    """Batches of the pairs of a round, shuffled in each epoch, randomly mirrored, with some matches dropped."""

    def __init__(self, spec: ExtractorSpec, settings: DheLiteSettings) -> None:
        cell_px = max(spec.input_size.width / spec.grid.columns, spec.input_size.height / spec.grid.rows)
        to_unit = resizing(spec.input_size, UNIT).diagonal()[:2]
        self._tolerance, self._settings = spec.tolerance_cells * cell_px * to_unit, settings
        self.pairs = MatchedPairs.joined([])

    @property
    def pairs(self) -> MatchedPairs:
        """The pairs of this round."""
        return self._pairs

    @pairs.setter
    def pairs(self, pairs: MatchedPairs) -> None:
        self._pairs, self._starts = pairs, starts_of(pairs.counts)

    def batch(self, turn: Turn) -> LiteBatch:
        """Draw the pairs of a turn."""
        size = self._settings.batch_size
        first = (turn.step * turn.processes + turn.process) * size
        drawn = [self._draw(number) for number in range(first, first + size)]
        points, homographies, kinds = zip(*drawn, strict=True)
        return LiteBatch(padded_batch(points, self._tolerance), torch.stack(homographies), torch.stack(kinds))

    def _draw(self, number: int) -> tuple[Tensor, Tensor, Tensor]:
        """One pair of the endless sequence of epochs, determined by the round, the seed and `number`."""
        epoch, position = divmod(number, len(self._pairs.counts))
        pair = int(order_of_epoch(self._settings.seed, epoch, len(self._pairs.counts))[position])
        random = np.random.default_rng((self._settings.seed, 2, number))
        points = self._thinned(self._pairs.points[self._starts[pair] : self._starts[pair + 1]], random)
        homography = self._pairs.homographies[pair]
        if random.random() < 0.5:
            points, homography = mirrored(points, homography)
        return points, homography, self._pairs.kinds[pair]

    def _thinned(self, points: Float32[Tensor, "matches 5"], random: np.random.Generator) -> Float32[Tensor, "kept 5"]:
        available = min(len(points), self._settings.max_matches)
        kept = max(MIN_MATCHES, round(available * (1 - random.uniform(0, self._settings.max_dropped))))
        return points[torch.from_numpy(random.permutation(len(points))[:kept])]


def mirrored(
    points: Float32[Tensor, "matches 5"], homography: Float64[Tensor, "3 3"]
) -> tuple[Float32[Tensor, "matches 5"], Float64[Tensor, "3 3"]]:
    """Mirror both images of matches and homography."""
    flipped = points.clone()
    flipped[:, [0, 2]] = 1 - flipped[:, [0, 2]]
    return flipped, _MIRROR @ homography @ _MIRROR
