"""Verifications of all candidates of a data set's queries, recorded once to compare ways of ranking them."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float64, Int64

from vpr_dhe.datasets import PlaceDataset
from vpr_dhe.evaluation.feature_cache import FeatureCache
from vpr_dhe.features.base import Extractor
from vpr_dhe.images.decoding import decode_named
from vpr_dhe.index.manifest import AdaptationInfo
from vpr_dhe.index.map_adaptation import verified_pairs
from vpr_dhe.index.search import SearchResult
from vpr_dhe.localization.candidate_maps import QueryImage
from vpr_dhe.localization.database import PinnedIndex
from vpr_dhe.localization.ranking import rerank
from vpr_dhe.localization.retrieval import Candidate, retrieve
from vpr_dhe.records import Features, Frame, GreyLevels, Grid, ImageRecord, Near, Size, Verification
from vpr_dhe.runtime.choices import AUTO, RankBy
from vpr_dhe.verification.build import build_estimator
from vpr_dhe.verification.verifier import SHORTLIST_SIZE, Verifier

VERIFIER, CANDIDATES = "magsac", 100
# A second order of equal similarities would need all of them.
_SPARE = 16
# Of the recorded columns; raised when the package finds them in another way.
_FORMAT = 2
_COLUMNS = ("rows", "similarity", "inliers", "weights", "votes", "right")


@dataclass(frozen=True)
class Query:
    """Candidates of one query in the order of retrieval: inliers with their weights, and votes of the coarse pass."""

    path: str
    rows: Int64[np.ndarray, " candidates"]
    similarity: Float64[np.ndarray, " candidates"]
    inliers: Int64[np.ndarray, " candidates"]
    weights: Float64[np.ndarray, " candidates"]
    votes: Float64[np.ndarray, " candidates"]
    right: Bool[np.ndarray, " candidates"]
    adaptation: AdaptationInfo | None = None

    def without(self, left_out: Bool[np.ndarray, " candidates"]) -> "Query":
        """Copy of the query without some of its candidates."""
        kept = ~left_out
        columns = (self.rows, self.similarity, self.inliers, self.weights, self.votes, self.right)
        return Query(self.path, *(column[kept] for column in columns), adaptation=self.adaptation)


def record(
    dataset: PlaceDataset, extractor: Extractor, cache: Path, *, codec: str = AUTO, adapt: bool = True
) -> list[Query]:
    """Verify the first 100 candidates of all queries by `magsac`, or read what an earlier run found.

    Args:
        dataset: with positives.
        extractor: of the features.
        cache: folder of features and of what was found.
        codec: of the local maps.
        adapt: whether the index is adapted to its map as by default.
    """
    facts = f"{_FORMAT} {extractor.spec.fingerprint[:12]} {codec} {dataset.name} {len(dataset.queries.records)} {adapt}"
    file = cache / f"recorded-{re.sub(r'[^a-z0-9]+', '-', facts)}.npz"
    index = FeatureCache(cache).index(dataset.database, extractor, codec=codec)
    index.unadapt()
    if adapt:
        index.adapt(verified_pairs)
    database = PinnedIndex(index.snapshot, Verifier(build_estimator(VERIFIER)))
    if not file.exists():
        row_of = {index.find(record.path): row for row, record in enumerate(dataset.database.records)}
        np.savez_compressed(file, **_columns(dataset, extractor, database, cache, row_of))
    columns = np.load(file)
    paths = [record.path for record in dataset.queries.records]
    rows = zip(paths, *(columns[name] for name in _COLUMNS), strict=True)
    return [Query(path, *found, adaptation=database.adaptation) for path, *found in rows]


def _columns(
    dataset: PlaceDataset, extractor: Extractor, database: PinnedIndex, cache: Path, row_of: dict[int | None, int]
) -> dict[str, np.ndarray]:
    columns: dict[str, list[Any]] = {name: [] for name in _COLUMNS}
    assert dataset.positives is not None
    for number, features in enumerate(FeatureCache(cache).queries(dataset.queries, extractor)):
        assert isinstance(features, Features)
        image = partial(decode_named, dataset.queries.folder / dataset.queries.records[number].path)
        found = retrieve(database, features, CANDIDATES + _SPARE)
        found = sorted(found, key=lambda one: (-one.similarity, row_of[one.id]))[:CANDIDATES]
        ids, rows = [one.id for one in found], [row_of[one.id] for one in found]
        verified, votes = database.verify(image, features, ids), database.shift_votes(features, ids)
        columns["rows"].append(rows)
        columns["similarity"].append([one.similarity for one in found])
        columns["inliers"].append([verified[id].inliers for id in ids])
        columns["weights"].append([verified[id].inlier_weight for id in ids])
        columns["votes"].append([votes[id] for id in ids])
        columns["right"].append(np.isin(rows, dataset.positives[number]))
    return {name: np.array(column) for name, column in columns.items()}


class Recorded:
    """Database that repeats what was found for candidates of one query; ids are places in the order of retrieval."""

    grey_levels = GreyLevels()
    verifies = True
    missing_shards: frozenset[str] = frozenset()
    nearby = None

    def __init__(self, query: Query, shortlist_size: int | None, *, weighted: bool = True) -> None:
        self._query, self.shortlist_size, self._weighted = query, shortlist_size, weighted
        self.adaptation = query.adaptation

    def shift_votes(self, query: Features, ids: Sequence[int]) -> dict[int, float]:
        """Repeat the coarse pass."""
        del query
        return dict(zip(ids, self._query.votes[list(ids)].tolist(), strict=True))

    def verify(self, image: QueryImage, query: Features, ids: Sequence[int]) -> dict[int, Verification]:
        """Repeat the numbers of inliers, and their weights, or equal ones."""
        del image, query
        weights = self._query.weights if self._weighted else np.ones(len(self._query.weights))
        rows = zip(self._query.inliers[list(ids)].tolist(), weights[list(ids)].tolist(), strict=True)
        return {id: _found(*row) for id, row in zip(ids, rows, strict=True)}

    def image_ids(self) -> list[int]:
        """Not asked for."""
        raise NotImplementedError

    def restricted_to(self, near: Near) -> "Recorded":
        """Not asked for."""
        raise NotImplementedError

    def search(self, descriptors: torch.Tensor, count: int, codes: torch.Tensor | None = None) -> SearchResult:
        """Not asked for."""
        raise NotImplementedError

    def records(self, ids: Sequence[int]) -> dict[int, ImageRecord]:
        """Not asked for."""
        raise NotImplementedError


def _found(inliers: int, weight: float) -> Verification:
    points = np.empty((inliers, 2))
    return Verification(None, float(inliers), points, points, inlier_weight=weight)


def localize(
    query: Query,
    rank_by: RankBy,
    margin: float | None = None,
    *,
    shortlist_size: int | None = SHORTLIST_SIZE,
    weighted: bool = True,
) -> list[Candidate]:
    """Candidates as the package ranks them, best first; ids are places in the order of retrieval.

    Args:
        query: what was recorded of it.
        rank_by: order of verified candidates.
        margin: of the early stop.
        shortlist_size: number of candidates to verify after the coarse pass; None verifies all.
        weighted: whether inliers count by their similarity.
    """
    database = Recorded(query, shortlist_size, weighted=weighted)
    candidates = [Candidate(place, one, one) for place, one in enumerate(query.similarity.tolist())]
    blank, side = np.zeros((16, 16, 3), np.uint8), Size(16, 16)
    features = Features(torch.ones(1), torch.ones(1, 1), Grid(1, 1), Frame(side, side))
    return rerank(database, blank, features, candidates, len(candidates), rank_by, stop_early=margin)


def verified_count(ranked: Sequence[Candidate]) -> int:
    """Number of candidates that were verified."""
    return sum(one.verification is not None and one.verification.attempted for one in ranked)
