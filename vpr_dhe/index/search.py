"""Search over the vectors of an index: by FAISS files where there are any, exactly elsewhere, merged."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Bool, Float32, Int64

from vpr_dhe.index.segments import Segment
from vpr_dhe.index.vectors import ApproximateIndex, Neighbours, Queries, RowTerms, exact_search, search_rows
from vpr_dhe.index.vectors import merge as merge_neighbours
from vpr_dhe.index.vectors.stack import take_rows


@dataclass(frozen=True)
class SearchResult:
    """Ids of the images nearest to each query, best first, and their similarities; ties are in the order of ids.

    `extracted` are similarities of the descriptors as extracted, where the search was by adapted ones.
    """

    ids: Int64[np.ndarray, "queries found"]
    similarities: Float32[np.ndarray, "queries found"]
    extracted: Float32[np.ndarray, "queries found"] | None = None

    @classmethod
    def empty(cls, queries: int) -> "SearchResult":
        """Make a result without images."""
        return cls(np.empty((queries, 0), np.int64), np.empty((queries, 0), np.float32))


@runtime_checkable
class Part(Protocol):
    """Part of an index's vectors that is searched as a whole."""

    ids: Int64[np.ndarray, " count"]

    def search(self, queries: Queries, count: int, among: Int64[np.ndarray, " chosen"] | None = None) -> Neighbours:
        """Find the `count` rows nearest to each query, or all if there are fewer; `among` are the rows to search."""
        ...


class ExactPart:
    """One segment, searched exactly in the mapped file; `terms` are of its rows, for adapted queries."""

    def __init__(
        self, segment: Segment, live: Bool[np.ndarray, " count"], terms: RowTerms | None, *, unit_norm: bool
    ) -> None:
        segment.require_sound_vectors()
        self.ids, self._vectors, self._unit_norm = segment.ids, segment.vectors, unit_norm
        self._terms = terms
        self._dead = None if live.all() else ~live

    def search(self, queries: Queries, count: int, among: Int64[np.ndarray, " chosen"] | None = None) -> Neighbours:
        """Compare each query with every vector, or with those of some rows."""
        if among is not None:
            live = among if self._dead is None else among[~self._dead[among]]
            return search_rows(
                live, self._vectors.__getitem__, queries, count, unit_norm=self._unit_norm, terms=self._terms
            )
        return exact_search(
            self._vectors, queries, count, unit_norm=self._unit_norm, dead=self._dead, terms=self._terms
        )


class CoveredPart:
    """Segments in one FAISS file, which proposes candidates; similarities come from the stored vectors."""

    def __init__(
        self,
        index: ApproximateIndex,
        segments: Sequence[Segment],
        live: Sequence[Bool[np.ndarray, " _count"]],
        terms: RowTerms | None,
    ) -> None:
        self._index, self._segments, self._terms = index, segments, terms
        self._starts = np.cumsum([0, *(len(segment.ids) for segment in segments)])
        dead = ~np.concatenate(live)
        self._dead = dead if dead.any() else None
        self.ids = np.concatenate([segment.ids for segment in segments])

    def search(self, queries: Queries, count: int, among: Int64[np.ndarray, " chosen"] | None = None) -> Neighbours:
        """Search the FAISS file, and compare its candidates exactly."""
        return self._index.search(queries, count, self._vectors_of, self._dead, self._terms, among=among)

    def _vectors_of(self, rows: Int64[np.ndarray, " chosen"]) -> Float32[np.ndarray, "chosen dimension"]:
        empty = np.empty((len(rows), self._segments[0].vectors.shape[1]), np.float32)
        return take_rows(
            rows, self._starts, empty, lambda number, chosen: self._segments[number].checked_vectors(chosen)
        )


def search_parts(
    parts: Sequence[Part], queries: Queries, count: int, among: Int64[np.ndarray, " chosen"] | None = None
) -> SearchResult:
    """Search all parts independently, and merge the results; `among` are the ids of the images to search."""
    found = [(part.ids, part.search(queries, count, _rows_of(part, among))) for part in parts]
    results = (SearchResult(ids[near.rows], near.similarities) for ids, near in found)
    return merge([SearchResult.empty(len(queries)), *results], count)


def _rows_of(part: Part, ids: Int64[np.ndarray, " chosen"] | None) -> Int64[np.ndarray, " rows"] | None:
    """Rows of the images of a part that have one of these ids, ascending; None for all."""
    return None if ids is None else np.flatnonzero(np.isin(part.ids, ids))


def merge(parts: Sequence[SearchResult], count: int) -> SearchResult:
    """Merge results of the same queries, and keep the best `count`."""
    best = merge_neighbours([Neighbours(part.ids, part.similarities) for part in parts], count)
    return SearchResult(best.rows, best.similarities, _extracted(parts, best.rows))


def _extracted(
    parts: Sequence[SearchResult], ids: Int64[np.ndarray, "queries found"]
) -> Float32[np.ndarray, "queries found"] | None:
    """Similarities as extracted of merged results; None where the search was by these."""
    adapted = [(part.ids, part.extracted) for part in parts if part.extracted is not None]
    if not adapted:
        return None
    known, values = (np.concatenate(columns, axis=1) for columns in zip(*adapted, strict=True))
    order = np.argsort(known, axis=1)
    places = [np.searchsorted(row[by_id], wanted) for row, by_id, wanted in zip(known, order, ids, strict=True)]
    return np.take_along_axis(values, np.take_along_axis(order, np.stack(places), axis=1), axis=1)
