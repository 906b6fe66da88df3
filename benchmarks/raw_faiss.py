"""The index types of this package as a user of FAISS alone would write them, and searches by both in turns."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from time import process_time
from typing import Any

import faiss
import numpy as np

SEED = 7
_LINKS = 32
_TRAINED_PER_LIST, _TRAINED_RANGES = 64, 65536
_TUNING_QUERIES, _TUNED_RECALL = 256, 0.96

Search = Callable[[np.ndarray], np.ndarray]
"""Function from a query (1 x dimension) to the rows of its neighbours."""


@dataclass(frozen=True)
class RawBuild:
    """Processor time in seconds to train, fill and write an index, and to tune its effort for recall (0 if none)."""

    processor_s: float
    tuning_s: float


@dataclass(frozen=True)
class Latency:
    """Median processor time in ms of single warm queries, of this package and of FAISS, taking turns.

    `faiss_ms` includes the exact comparison of candidates with stored vectors, as `ms` does; `candidates_ms` is the
    search for candidates alone. `ratio` is the median of `rounds` of ms / faiss_ms, `min_ratio` and `max_ratio` are its
    range. `agreement` is the share of neighbours that both find, from 0 to 1.
    """

    ms: float
    faiss_ms: float
    candidates_ms: float
    ratio: float
    min_ratio: float
    max_ratio: float
    agreement: float
    rounds: int


def build_raw(path: Path, kind: str, vectors: np.ndarray, codes: np.ndarray, efforts: Sequence[int]) -> RawBuild:
    """Train, fill and write an index with the parameters of this package, and tune its effort."""
    started = process_time()
    if kind == "binary-codes":
        index = faiss.IndexBinaryFlat(8 * codes.shape[1])
        index.add(codes)
        faiss.write_index_binary(index, str(path))
        return RawBuild(process_time() - started, 0.0)
    index, trained = _empty(kind, *vectors.shape)
    rows = np.random.default_rng(SEED).choice(len(vectors), min(len(vectors), trained), replace=False)
    index.train(vectors[np.sort(rows)])
    index.add(vectors)
    faiss.write_index(index, str(path))
    built = process_time()
    _tune(index, kind, vectors, efforts)
    return RawBuild(built - started, process_time() - built)


def _empty(kind: str, count: int, dimension: int) -> tuple[Any, int]:
    """Make an index, and the number of vectors to train it on."""
    if kind == "hnsw":
        return faiss.IndexHNSWSQ(dimension, faiss.ScalarQuantizer.QT_8bit, _LINKS), _TRAINED_RANGES
    lists = max(1, min(int(4 * count**0.5), count // 39))
    factory = {"ivf-flat": "IVF{},Flat", "ivf-sq8": "IVF{},SQ8", "rabitq": "RR,IVF{},RaBitQ"}[kind]
    index = faiss.index_factory(dimension, factory.format(lists), faiss.METRIC_L2)
    if kind == "rabitq":
        faiss.downcast_VectorTransform(index.chain.at(0)).init(SEED)
    clustering = faiss.extract_index_ivf(index).cp
    clustering.seed, clustering.min_points_per_centroid = SEED, 1
    return index, _TRAINED_PER_LIST * lists


def _tune(index: Any, kind: str, vectors: np.ndarray, efforts: Sequence[int]) -> int:
    """Find the smallest effort with the recall of the package's target, by bisection, stored vectors as queries."""
    queries = vectors[np.random.default_rng(SEED).choice(len(vectors), min(len(vectors), _TUNING_QUERIES), False)]
    truth = faiss.knn(queries, vectors, 101, metric=faiss.METRIC_INNER_PRODUCT)[1]
    low, high = 0, len(efforts) - 1
    while low < high:
        middle = (low + high) // 2
        rows = _refined(index, vectors, _parameters(kind, efforts[middle]), 2.0)(queries, 101)
        recall = np.mean([np.isin(true, found).mean() for true, found in zip(truth, rows, strict=True)])
        low, high = (low, middle) if recall >= _TUNED_RECALL else (middle + 1, high)
    return efforts[low]


def _refined(index: Any, vectors: np.ndarray, parameters: Any, factor: float) -> Callable[..., np.ndarray]:
    """Make a search from queries and a count to rows, whose candidates are compared with the stored vectors."""
    refined = faiss.IndexRefineFlat(index, faiss.swig_ptr(vectors))
    refining = faiss.IndexRefineSearchParameters(k_factor=factor, base_index_params=parameters)
    # The index and the parameters refer to these without keeping them.
    kept = (index, parameters, vectors)
    return lambda queries, count: kept and refined.search(queries, count, params=refining)[1]


def _parameters(kind: str, effort: int) -> Any:
    if kind == "hnsw":
        return faiss.SearchParametersHNSW(efSearch=effort)
    if kind == "rabitq":
        lists = faiss.IVFRaBitQSearchParameters(nprobe=effort, qb=8)
        return faiss.SearchParametersPreTransform(index_params=lists)
    return faiss.SearchParametersIVF(nprobe=effort)


def flat_search(vectors: np.ndarray, count: int) -> tuple[Search, Search]:
    """Make an exact search, which compares no candidates again."""
    flat = faiss.IndexFlatIP(vectors.shape[1])
    flat.add(vectors)
    return (lambda query: flat.search(query, count)[1][0],) * 2


def file_search(
    path: Path, kind: str, effort: int, candidates: int, vectors: np.ndarray, count: int
) -> tuple[Search, Search]:
    """Make the search for neighbours, and that for their candidates alone."""
    index, parameters = faiss.read_index(str(path)), _parameters(kind, effort)
    refined = _refined(index, vectors, parameters, candidates / count)
    return (
        lambda query: refined(query, count)[0],
        lambda query: index.search(query, candidates, params=parameters)[1][0],
    )


def code_search(path: Path, code_of: Search, candidates: int, vectors: np.ndarray, count: int) -> tuple[Search, Search]:
    """Make the search for neighbours by codes, and that for their candidates alone."""
    index = faiss.read_index_binary(str(path))

    def propose(query: np.ndarray) -> np.ndarray:
        return index.search(code_of(query), candidates)[1][0]

    def nearest(query: np.ndarray) -> np.ndarray:
        rows = propose(query)
        return rows[np.argsort(-(vectors[rows] @ query[0]))[:count]]

    return nearest, propose


def compare(searches: Sequence[Search], queries: Sequence[np.ndarray], rounds: int) -> Latency:
    """Time this package, FAISS, and FAISS's search for candidates with the same queries in turns."""
    found = [[set(search(query).tolist()) for search in searches[:2]] for query in queries]
    medians = [_medians(searches, queries, number) for number in range(rounds)]
    ratios = sorted(ours / other for ours, other, _ in medians)
    ms, faiss_ms, candidates_ms = (median(column) for column in zip(*medians, strict=True))
    agreement = float(np.mean([len(ours & other) / len(other) for ours, other in found]))
    return Latency(ms, faiss_ms, candidates_ms, median(ratios), ratios[0], ratios[-1], agreement, rounds)


def _medians(searches: Sequence[Search], queries: Sequence[np.ndarray], first: int) -> list[float]:
    """Median processor times in ms of one round.

    Searches in turn take different queries, because the second search of the same one finds its part of the index in
    the caches.
    """
    times: list[list[float]] = [[] for _ in searches]
    apart = len(queries) // len(searches)
    for turn in range(len(queries)):
        for step in range(len(searches)):
            number = (first + turn + step) % len(searches)
            query = queries[(turn + number * apart) % len(queries)]
            started = process_time()
            searches[number](query)
            times[number].append(1e3 * (process_time() - started))
    return [median(column) for column in times]
