"""Building of FAISS files, and tuning of their search for a target recall."""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float32, Int64

from vpr_dhe.errors import BadInputError
from vpr_dhe.index.vectors.approximate import TUNED_COUNT, ApproximateIndex, VectorFileInfo
from vpr_dhe.index.vectors.exact import (
    Neighbours,
    Queries,
    exact_search,
    may_be_near,
    merge,
    nothing,
    similarities,
    together,
)
from vpr_dhe.index.vectors.faiss_library import import_faiss
from vpr_dhe.index.vectors.stack import FileRows, Stack
from vpr_dhe.index.vectors.types import INDEX_TYPES, SEED, IndexType

RECALL_TARGET = 0.95
# Target while tuning the effort, with the most candidates; fewer candidates and the noise of 256 queries, whose mean
# recall has a standard error below 0.01, use up the difference.
_EFFORT_RECALL_TARGET = 0.96
_QUERIES = 256


def build_vector_file(
    path: Path, kind: str, vectors: FileRows, *, unit_norm: bool, codes: Stack | None = None
) -> VectorFileInfo:
    """Build a FAISS file over vectors, and tune its search.

    The search is tuned to find 0.95 of the 100 nearest neighbours. Results are deterministic on one machine. Memory
    holds the FAISS index (see `INDEX_TYPES`) and a training sample, not the vectors.

    Args:
        path: path of the file, which is durable on return.
        kind: one of `INDEX_TYPES`.
        vectors: the vectors.
        unit_norm: as in `exact_search`.
        codes: binary codes of the same rows, for a type of codes.

    Raises:
        BadInputError: if there are no vectors, or the kind is unknown, or one of codes, and there are none.
    """
    if kind not in INDEX_TYPES:
        raise BadInputError(f"there is no index type {kind!r}; use one of {', '.join(INDEX_TYPES)}")
    if not len(vectors):
        raise BadInputError("there are no vectors to build an index of; add images first")
    type = INDEX_TYPES[kind](len(vectors))
    if type.of_codes and codes is None:
        raise BadInputError(f"there are no binary codes to build an index of type {kind} of; use another type")
    rows = codes if type.of_codes and codes is not None else vectors
    index = type.train(rows.take(_sample(len(vectors), type.training_rows)))
    for block in rows.blocks():
        type.add(index, block)
    recall_of = _recall_meter(vectors, rows, unit_norm=unit_norm)
    parameters, recall = _tune(index, kind, type, recall_of, unit_norm=unit_norm)
    _write(index, path)
    return VectorFileInfo(kind, len(vectors), parameters, recall.at_1, recall.at_100, path.stat().st_size)


def _sample(count: int, wanted: int) -> Int64[np.ndarray, " sample"]:
    """Random rows, the same on each call, ascending."""
    return np.sort(np.random.default_rng(SEED).choice(count, min(count, wanted), replace=False))


def _write(index: Any, path: Path) -> None:
    faiss = import_faiss()
    write = faiss.write_index_binary if isinstance(index, faiss.IndexBinary) else faiss.write_index
    try:
        write(index, str(path))
    except RuntimeError as error:  # FAISS raises no OSError, as of a full disk
        path.unlink(missing_ok=True)
        raise OSError(f"{path} cannot be written ({error})") from error
    with path.open("rb") as file:
        os.fsync(file.fileno())


@dataclass(frozen=True)
class _Recall:
    at_1: float
    at_100: float


def _tune(
    index: Any, kind: str, type: IndexType, recall_of: Callable[[ApproximateIndex], _Recall], *, unit_norm: bool
) -> tuple[dict[str, int], _Recall]:
    """Find the smallest effort, then the fewest candidates, that reach the recall; returns them and the recall."""

    @cache
    def measure(effort: int, candidates: int) -> _Recall:
        return recall_of(ApproximateIndex(index, kind, parameters(effort, candidates), unit_norm=unit_norm))

    def parameters(effort: int, candidates: int) -> dict[str, int]:
        return {**type.shape, "effort": effort, "candidates": candidates}

    max_candidates = type.candidates[-1]
    effort = _smallest(type.efforts, lambda effort: measure(effort, max_candidates).at_100 >= _EFFORT_RECALL_TARGET)
    candidates = _smallest(type.candidates, lambda candidates: measure(effort, candidates).at_100 >= RECALL_TARGET)
    return parameters(effort, candidates), measure(effort, candidates)


def _smallest(choices: Sequence[int], suffices: Callable[[int], bool]) -> int:
    """First of ascending choices that suffices, by bisection; the last if none does."""
    low, high = 0, len(choices) - 1
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if suffices(choices[middle]) else (middle + 1, high)
    return choices[low]


def _recall_meter(vectors: FileRows, in_file: FileRows, *, unit_norm: bool) -> Callable[[ApproximateIndex], _Recall]:
    """Make a function that measures recall with stored vectors as queries, each excluded from its own neighbours.

    A neighbour counts as found if an equally similar one was found. `in_file` are the rows of the FAISS file.
    """
    rows = _sample(len(vectors), _QUERIES)
    queries, probes = vectors.probes(rows), in_file.probes(rows)
    truth = _others(_search_rows(vectors, queries, TUNED_COUNT + 1, unit_norm=unit_norm), rows)

    def similarities_found(index: ApproximateIndex, number: int) -> Float32[np.ndarray, " others"]:
        query, probe = (each[number : number + 1] for each in (queries, probes))
        candidates = index.candidates(probe, TUNED_COUNT + 1)
        others = candidates[candidates != rows[number]]
        return similarities(query, vectors.take(others), unit_norm=unit_norm)[0]

    def measure(index: ApproximateIndex) -> _Recall:
        others = truth.shape[1]
        if not others:
            return _Recall(1.0, 1.0)
        found = [similarities_found(index, number) for number in range(len(rows))]
        nearest = [values.max(initial=-np.inf) >= best[0] for values, best in zip(found, truth, strict=True)]
        among = [min((values >= best[-1]).sum(), others) for values, best in zip(found, truth, strict=True)]
        return _Recall(float(np.mean(nearest)), float(np.mean(among)) / others)

    return measure


def _search_rows(
    vectors: FileRows, queries: Float32[np.ndarray, "queries dimension"], count: int, *, unit_norm: bool
) -> Neighbours:
    best, first = [nothing(1)] * len(queries), 0
    for block in vectors.blocks():
        floors = np.array([one.similarities[0, -1] if one.rows.size == count else -np.inf for one in best], np.float32)
        near = may_be_near(block, queries, count, floors, unit_norm=unit_norm)
        for number, mask in enumerate(near):
            rows, query = np.flatnonzero(mask), Queries.extracted(queries[number : number + 1])
            found = exact_search(block[rows], query, count, unit_norm=unit_norm)
            best[number] = merge([best[number], Neighbours(first + rows[found.rows], found.similarities)], count)
        first += len(block)
    return together(best)


def _others(found: Neighbours, rows: Int64[np.ndarray, " queries"]) -> Float32[np.ndarray, "queries others"]:
    """Similarities of all but the query itself or, if ties displaced it, of all but the last."""
    itself = found.rows == rows[:, None]
    itself[~itself.any(axis=1), -1] = True
    return found.similarities[~itself].reshape(len(rows), -1)
