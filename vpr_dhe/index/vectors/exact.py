"""Exact similarities and exact search over arrays in memory or on disk.

All similarities that the index returns are computed here, pair by pair, so that they depend on the two vectors alone
(and on the instruction set of the processor): a matrix product would sum in another order for another number of rows.
"""

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float32, Int64, UInt8

from vpr_dhe.index.vectors.faiss_library import import_faiss, one_thread

# Bounds of memory: 20 bytes per pair of a query and a vector.
_BLOCK_PAIRS = 1 << 19
_BLOCK_QUERIES = 64
_BLOCK_ROWS = 16384
# Multiplications, some milliseconds on one thread. On a busy machine, waiting for a second thread may take 30 ms.
_MIN_PRODUCTS_FOR_THREADS = 1 << 26
# Up to this many rows, sorting all of them takes less time than finding the best first.
_SORTED_ROWS = 1024


RowsOf = Callable[[Int64[np.ndarray, " chosen"]], Float32[np.ndarray, "chosen dimension"]]
"""Function from ascending row numbers to stored vectors."""


@dataclass(frozen=True)
class Neighbours:
    """Row numbers of the nearest vectors, best first, and their similarities; ties are in the order of rows."""

    rows: Int64[np.ndarray, "queries found"]
    similarities: Float32[np.ndarray, "queries found"]


@dataclass(frozen=True)
class RowTerms:
    """Terms of rows in similarities of adapted vectors: scale x (inner product + bias of the query) - offset."""

    scales: Float32[np.ndarray, " count"]
    offsets: Float32[np.ndarray, " count"]

    def take(self, rows: Int64[np.ndarray, " chosen"] | Bool[np.ndarray, " count"] | slice) -> "RowTerms":
        """Select some rows."""
        return RowTerms(self.scales[rows], self.offsets[rows])


@dataclass(frozen=True)
class Queries:
    """Query vectors: to compare with stored rows, and to compare with the rows of FAISS files.

    Args:
        vectors: compared with stored rows.
        probes: compared with rows of FAISS files.
        biases: added to inner products of adapted queries; None if vectors are as extracted.
        codes: binary codes, compared with those in FAISS files of codes; None if not known.
    """

    vectors: Float32[np.ndarray, "queries dimension"]
    probes: Float32[np.ndarray, "queries file_dimension"]
    biases: Float32[np.ndarray, " queries"] | None = None
    codes: UInt8[np.ndarray, "queries code_bytes"] | None = None

    @classmethod
    def extracted(
        cls,
        vectors: Float32[np.ndarray, "queries dimension"],
        codes: UInt8[np.ndarray, "queries code_bytes"] | None = None,
    ) -> "Queries":
        """Make queries for rows as extracted."""
        return cls(vectors, vectors, codes=codes)

    def __len__(self) -> int:
        return len(self.vectors)

    def __getitem__(self, chosen: slice) -> "Queries":
        biases = None if self.biases is None else self.biases[chosen]
        codes = None if self.codes is None else self.codes[chosen]
        return Queries(self.vectors[chosen], self.probes[chosen], biases, codes)

    def similarities(
        self, rows: Float32[np.ndarray, "count dimension"], terms: RowTerms | None, *, unit_norm: bool
    ) -> Float32[np.ndarray, "queries count"]:
        """Compute similarities to rows; adapted queries need the terms of these."""
        if self.biases is None:
            return similarities(self.vectors, rows, unit_norm=unit_norm)
        assert terms is not None, "adapted rows have terms"
        products = similarities(self.vectors, rows, unit_norm=True)
        return terms.scales * (products + self.biases[:, None]) - terms.offsets


def exact_search(
    vectors: Float32[np.ndarray, "count dimension"],
    queries: Queries,
    count: int,
    *,
    unit_norm: bool,
    dead: Bool[np.ndarray, " count"] | None = None,
    terms: RowTerms | None = None,
) -> Neighbours:
    """Find the `count` nearest vectors of each query, or all if there are fewer.

    Args:
        vectors: vectors, which may be mapped from a file; they are read block by block.
        queries: query descriptors, finite.
        count: number of vectors to find.
        unit_norm: whether vectors are compared by cosine rather than by distance; see `similarities`.
        dead: mask of rows to ignore.
        terms: of the rows, for adapted queries.
    """
    found = [
        _search_chunk(vectors, queries[start : start + _BLOCK_QUERIES], count, unit_norm, dead, terms)
        for start in range(0, len(queries), _BLOCK_QUERIES)
    ]
    return together(found)


def search_rows(
    rows: Int64[np.ndarray, " chosen"],
    rows_of: RowsOf,
    queries: Queries,
    count: int,
    *,
    unit_norm: bool,
    terms: RowTerms | None = None,
) -> Neighbours:
    """Find the `count` nearest of some rows for each query, or all if there are fewer; others are not read.

    Args:
        rows: row numbers, ascending.
        rows_of: reads vectors.
        queries: query descriptors, finite.
        count: number of vectors to find.
        unit_norm: as in `exact_search`.
        terms: of all rows, for adapted queries.
    """
    best = nothing(len(queries))
    for start in range(0, len(rows), _BLOCK_ROWS):
        chosen = rows[start : start + _BLOCK_ROWS]
        among = exact_search(rows_of(chosen), queries, count, unit_norm=unit_norm, terms=terms and terms.take(chosen))
        found = Neighbours(chosen[among.rows], among.similarities)
        best = merge([best, found], count) if start else found
    return best


def _search_chunk(
    vectors: Float32[np.ndarray, "count dimension"],
    queries: Queries,
    count: int,
    unit_norm: bool,
    dead: Bool[np.ndarray, " count"] | None,
    terms: RowTerms | None,
) -> Neighbours:
    best = nothing(len(queries))
    step = _BLOCK_PAIRS // len(queries)
    for start in range(0, len(vectors), step):
        block = slice(start, min(start + step, len(vectors)))
        live = np.arange(block.start, block.stop)
        values = queries.similarities(vectors[block], terms and terms.take(block), unit_norm=unit_norm)
        if dead is not None and dead[block].any():
            live, values = live[~dead[block]], values[:, ~dead[block]]
        found = _nearest(values, live, count)
        best = merge([best, found], count) if start else found
    return best


def may_be_near(
    vectors: Float32[np.ndarray, "count dimension"],
    queries: Float32[np.ndarray, "queries dimension"],
    count: int,
    floors: Float32[np.ndarray, " queries"],
    *,
    unit_norm: bool,
) -> Bool[np.ndarray, "queries count"]:
    """Mask of all pairs, and few others, whose similarity is among the `count` greatest of the query.

    A matrix product, which takes a fraction of the time of `similarities`, differs from those by at most a bound of
    rounding (Higham, Accuracy and Stability of Numerical Algorithms, 2002, section 3.1).

    Args:
        vectors: some of the vectors that are searched, at least one.
        queries: query descriptors, finite.
        count: number of vectors to find.
        floors: `count`-th greatest similarities to the other vectors, or -inf.
        unit_norm: as in `similarities`.
    """
    query_norms, norms = np.linalg.norm(queries, axis=1), np.linalg.norm(vectors, axis=1)
    values = queries @ vectors.T
    if not unit_norm:
        values += (1 - query_norms**2 / 2)[:, None] - norms**2 / 2
    # Bound of the sums of both, with 8 roundings of single terms; `eps` is twice the largest error of a rounding.
    slack = (vectors.shape[1] + 8) * np.finfo(np.float32).eps * (1 + (query_norms + norms.max()) ** 2)
    if count < len(vectors) and np.isneginf(floors).any():
        floors = np.maximum(floors, np.partition(values, -count, axis=1)[:, -count] - slack)
    return values >= (floors - slack)[:, None]


def similarities(
    queries: Float32[np.ndarray, "queries dimension"],
    vectors: Float32[np.ndarray, "count dimension"],
    *,
    unit_norm: bool,
) -> Float32[np.ndarray, "queries count"]:
    """Compute similarities of all pairs: the inner product, or 1 - d^2 / 2 for the distance d.

    For vectors of unit norm both are the cosine.
    """
    faiss = import_faiss()
    queries, vectors = np.ascontiguousarray(queries), np.ascontiguousarray(vectors)
    # These functions of FAISS take pairs of row numbers, and compute each pair separately.
    left = np.repeat(np.arange(len(queries)), len(vectors))
    right = np.broadcast_to(np.arange(len(vectors)), (len(queries), len(vectors))).ravel()
    values = np.empty(len(left), np.float32)
    compare = faiss.pairwise_indexed_inner_product if unit_norm else faiss.pairwise_indexed_L2sqr
    with one_thread() if len(left) * vectors.shape[1] < _MIN_PRODUCTS_FOR_THREADS else nullcontext():
        compare(vectors.shape[1], len(left), *map(faiss.swig_ptr, (queries, left, vectors, right, values)))
    return (values if unit_norm else 1 - values / 2).reshape(len(queries), len(vectors))


def _nearest(values: Float32[np.ndarray, "queries count"], rows: Int64[np.ndarray, " count"], count: int) -> Neighbours:
    """Select the best similarities per query; ties go to the first rows."""
    count = min(count, len(rows))
    if len(rows) <= _SORTED_ROWS:
        chosen = np.argsort(-values, axis=1, kind="stable")[:, :count]
    else:
        chosen = np.empty((len(values), count), np.int64)
        for query, line in enumerate(values if count else ()):
            candidates = np.flatnonzero(line >= np.partition(line, -count)[-count])
            chosen[query] = candidates[np.argsort(-line[candidates], kind="stable")[:count]]
    return Neighbours(rows[chosen], values[np.arange(len(values))[:, None], chosen])


def merge(parts: Sequence[Neighbours], count: int) -> Neighbours:
    """Merge results of the same queries in several parts, whose row numbers are distinct, and keep the best `count`.

    The result equals that of one search over all parts, since ties are in the order of rows.
    """
    rows = np.concatenate([part.rows for part in parts], axis=1)
    values = np.concatenate([part.similarities for part in parts], axis=1)
    order = np.lexsort((rows, -values), axis=1)[:, :count]
    return Neighbours(np.take_along_axis(rows, order, axis=1), np.take_along_axis(values, order, axis=1))


def together(found: Sequence[Neighbours]) -> Neighbours:
    """Join results of different queries."""
    if len(found) == 1:
        return found[0]
    parts = found or [nothing(0)]
    return Neighbours(np.concatenate([one.rows for one in parts]), np.concatenate([one.similarities for one in parts]))


def nothing(queries: int) -> Neighbours:
    """Make an empty result for a number of queries."""
    return Neighbours(np.empty((queries, 0), np.int64), np.empty((queries, 0), np.float32))
