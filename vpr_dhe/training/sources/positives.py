"""Pairs of a place data set: a query and a database image taken nearby."""

import numpy as np

from vpr_dhe.datasets.base import PlaceDataset
from vpr_dhe.errors import DatasetError
from vpr_dhe.images.decoding import decode_named
from vpr_dhe.training.mining import near_images
from vpr_dhe.training.sources.base import PairSource, TrainingPair

POSITIVE_RADIUS_M = 10.0
"""Radius of positives for training, smaller than for evaluation (Arandjelovic et al., NetVLAD, CVPR 2016)."""


class PositivePairs(PairSource):
    """One pair per query with a positive; the positive changes from epoch to epoch.

    The protocol of `dataset` defines positives. The places of a pair are the database images that are not negatives of
    its query, so that nearby queries have a place in common.

    Raises:
        DatasetError: if the ground truth is not public.
    """

    knows_homographies = False

    def __init__(self, dataset: PlaceDataset) -> None:
        if dataset.positives is None:
            raise DatasetError(
                f"the ground truth of {dataset.name} ({dataset.protocol}) is not public; train on others"
            )
        self._dataset = dataset
        self._near = near_images(dataset, dataset.positives)
        self._positives = [(query, rows) for query, rows in enumerate(dataset.positives) if rows.size]
        self.description = f"{dataset.name}: {len(self)} queries with a positive ({dataset.protocol})"

    def __len__(self) -> int:
        return len(self._positives)

    def pair(self, index: int, random: np.random.Generator) -> TrainingPair:
        """Decode a query and one of its positives."""
        query, rows = self._positives[index]
        queries, database = self._dataset.queries, self._dataset.database
        row = int(rows[random.integers(len(rows))])
        return TrainingPair(
            decode_named(queries.folder / queries.records[query].path),
            decode_named(database.folder / database.records[row].path),
            places=frozenset(str(database.folder / database.records[near].path) for near in self._near[query]),
        )
