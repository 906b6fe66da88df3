"""Mining of triplets: the most similar positive and the most similar negatives of each query.

Source: Berton et al., "Deep Visual Geo-localization Benchmark", CVPR 2022, and its published code: positives within 10
m, negatives beyond 25 m, 1000 queries and 1000 random database images per round. Its full mining caches the hardest
negatives seen so far; here, the whole database is extracted in each round.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor

from vpr_dhe.datasets.base import PlaceDataset, Positives
from vpr_dhe.errors import DatasetError
from vpr_dhe.geography.distance import RADIUS_M
from vpr_dhe.geography.neighbours import positions_within
from vpr_dhe.runtime.choices import Mining

Extract: TypeAlias = Callable[[Sequence[Path]], Float[Tensor, "images dimension"]]
Triplets: TypeAlias = Int64[Tensor, "triplets columns"]
"""Indices of a query, its positive, and its negatives, in this order."""


@dataclass(frozen=True)
class MiningSettings:
    """Size of a round; `sampled_images` is the size of the sample of the database, for partial mining."""

    mining: Mining = Mining.partial
    queries: int = 1000
    negatives: int = 10
    sampled_images: int = 1000


class TripletMiner:
    """Miner of triplets in a data set; its positives are the positives of the triplets.

    Raises:
        DatasetError: if the ground truth is not public, or there are too few images for a triplet.
    """

    def __init__(self, dataset: PlaceDataset, settings: MiningSettings) -> None:
        if dataset.positives is None:
            raise DatasetError(
                f"the ground truth of {dataset.name} ({dataset.protocol}) is not public; train on others"
            )
        self._dataset, self._settings, self._positives = dataset, settings, dataset.positives
        self._near = near_images(dataset, dataset.positives)
        count = len(dataset.database.records)
        # Usable queries have a positive and enough distant database images.
        self._queries = np.array(
            [
                query
                for query, (right, near) in enumerate(zip(self._positives, self._near, strict=True))
                if right.size and count - len(near) >= settings.negatives
            ],
            dtype=np.int64,
        )
        if not self._queries.size:
            raise DatasetError(f"{dataset.name}: no query has a positive and {settings.negatives} negatives")

    @property
    def triplets_per_round(self) -> int:
        """Number of triplets in each round."""
        return min(self._settings.queries, len(self._queries))

    def mine(self, extract: Extract, random: np.random.Generator) -> Triplets:
        """Mine one round with the extractor's current descriptors."""
        queries = random.choice(self._queries, self.triplets_per_round, replace=False).tolist()
        pool = self._pool(random)
        rows = np.unique(np.concatenate([pool, *(self._positives[query] for query in queries)]))
        split, database = self._dataset.queries, self._dataset.database
        candidates = extract([database.folder / database.records[row].path for row in rows])
        anchors = extract([split.folder / split.records[query].path for query in queries])
        distances = torch.cdist(anchors, candidates).numpy()
        mined = []
        for query, to in zip(queries, distances, strict=True):
            positives = self._positives[query]
            best = positives[to[np.searchsorted(rows, positives)].argmin()]
            far = pool[~np.isin(pool, self._near[query])]
            if len(far) < self._settings.negatives:
                far = self._random_negatives(query, random)
            else:
                far = far[to[np.searchsorted(rows, far)].argsort(kind="stable")][: self._settings.negatives]
            mined.append([query, int(best), *far.tolist()])
        return torch.tensor(mined)

    def _pool(self, random: np.random.Generator) -> Int64[np.ndarray, " pool"]:
        """Indices of the images searched for the hardest negatives."""
        count = len(self._dataset.database.records)
        kept = {Mining.random: 0, Mining.partial: self._settings.sampled_images, Mining.full: count}
        return random.permutation(count)[: kept[self._settings.mining]]

    def _random_negatives(self, query: int, random: np.random.Generator) -> Int64[np.ndarray, " negatives"]:
        everything = random.permutation(len(self._dataset.database.records))
        return everything[~np.isin(everything, self._near[query])][: self._settings.negatives]


def near_images(dataset: PlaceDataset, positives: Positives) -> Positives:
    """Indices that are not negatives of each query: all within 25 m if positions are known, else the positives.

    Positions of several cities need not be comparable with each other.
    """
    database, queries = ([record.position for record in split.records] for split in (dataset.database, dataset.queries))
    known, asked = ([position for position in some if position is not None] for some in (database, queries))
    if len(known) < len(database) or len(asked) < len(queries):
        return positives
    within = positions_within(known, asked, RADIUS_M)
    return tuple(np.union1d(one, other) for one, other in zip(within, positives, strict=True))
