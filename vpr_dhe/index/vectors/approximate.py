"""Approximate search: candidates from a FAISS file, similarities from the stored vectors."""

import math
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
from jaxtyping import Bool, Float32, Int64

from vpr_dhe.errors import BadInputError, IndexDamagedError, MissingExtraError
from vpr_dhe.index.vectors.exact import Neighbours, Queries, RowTerms, exact_search, merge, nothing
from vpr_dhe.index.vectors.faiss_library import import_faiss, one_thread
from vpr_dhe.index.vectors.types import INDEX_TYPES

# Number of neighbours that files are tuned for.
TUNED_COUNT = 100
_GPU_CANDIDATES = 2048  # limit of FAISS on a GPU, also for lists
_BLOCK_ROWS = 16384

RowsOf = Callable[[Int64[np.ndarray, " chosen"]], Float32[np.ndarray, "chosen dimension"]]
"""Function from ascending row numbers to stored vectors."""


@dataclass(frozen=True)
class VectorFileInfo:
    """Entry of a FAISS file in the manifest.

    `parameters` are those of its structure, `effort` (nprobe or efSearch) and `candidates`; `recall_at_1` and
    `recall_at_100`, from 0 to 1, are relative to exact search, with stored vectors as queries.
    """

    kind: str
    count: int
    parameters: Mapping[str, int]
    recall_at_1: float
    recall_at_100: float
    bytes: int


class ApproximateIndex:
    """FAISS index over rows numbered from 0; safe to use from several threads.

    Queries are searched one at a time, because matrix products in FAISS give slightly different results for batches of
    different sizes.
    """

    def __init__(self, index: Any, kind: str, parameters: Mapping[str, int], *, unit_norm: bool) -> None:
        self._index, self._type, self._unit_norm = index, INDEX_TYPES[kind](index.ntotal), unit_norm
        self._effort, self._candidates = parameters["effort"], parameters["candidates"]
        self._max_candidates, self._max_effort = len(self), self._type.efforts[-1]
        self._lock: Any = nullcontext()

    @classmethod
    def open(cls, path: Path, info: VectorFileInfo, *, unit_norm: bool, gpu: bool = False) -> "ApproximateIndex":
        """Open a file whose checksum was checked, because FAISS may load a damaged file and answer wrongly.

        Args:
            path: path of the file, which is mapped into memory as far as FAISS can: it may be deleted, but must not
                change.
            info: entry in the manifest.
            unit_norm: as in `exact_search`.
            gpu: load the index to the first GPU.

        Raises:
            IndexDamagedError: if FAISS cannot read the file, or it holds another number of vectors.
            BadInputError: if FAISS does not support the type on a GPU.
            MissingExtraError: if FAISS finds no GPU.
        """
        faiss = import_faiss()
        flags = 0 if gpu else faiss.IO_FLAG_MMAP_IFC
        try:
            index = faiss.read_index(str(path), flags)
        except RuntimeError as error:
            raise IndexDamagedError(f"{path} cannot be read by FAISS; build it again") from error
        if index.ntotal != info.count:
            raise IndexDamagedError(f"{path} holds {index.ntotal} vectors instead of {info.count}; build it again")
        opened = cls(index, info.kind, info.parameters, unit_norm=unit_norm)
        if gpu:
            opened._move_to_gpu(info.kind)
        return opened

    def _move_to_gpu(self, kind: str) -> None:
        faiss = import_faiss()
        if not self._type.on_gpu:
            able = ", ".join(name for name, type in INDEX_TYPES.items() if type.on_gpu)
            raise BadInputError(f"an index of type {kind} cannot be searched on a GPU; use one of {able}")
        if not faiss.get_num_gpus():
            raise MissingExtraError(
                "FAISS finds no GPU; install faiss-gpu-cu12 instead of faiss-cpu, or search on the CPU"
            )
        self._resources = faiss.StandardGpuResources()
        self._index = faiss.index_cpu_to_gpu(self._resources, 0, self._index)
        self._max_candidates = min(self._max_candidates, _GPU_CANDIDATES)
        self._max_effort = min(self._max_effort, _GPU_CANDIDATES)
        self._lock = Lock()  # resources of a GPU serve one thread at a time

    def __len__(self) -> int:
        return self._index.ntotal

    def search(
        self,
        queries: Queries,
        count: int,
        rows_of: RowsOf,
        dead: Bool[np.ndarray, " count"] | None = None,
        terms: RowTerms | None = None,
    ) -> Neighbours:
        """Find approximately the `count` nearest vectors of each query, or all if there are fewer.

        Args:
            queries: query descriptors, finite.
            count: number of vectors to find.
            rows_of: stored vectors, from which similarities are computed.
            dead: mask of rows to ignore.
            terms: of all rows, for adapted queries.
        """
        dead = np.zeros(len(self), bool) if dead is None else dead
        live = len(self) - int(dead.sum())
        count = min(count, live)
        if not (count and len(queries)):
            return nothing(len(queries))
        stored = _StoredRows(rows_of, terms, self._unit_norm)
        found = [
            self._search_one(queries[number : number + 1], count, stored, dead, live) for number in range(len(queries))
        ]
        return Neighbours(
            np.concatenate([one.rows for one in found]), np.concatenate([one.similarities for one in found])
        )

    def candidates(self, query: Float32[np.ndarray, "1 dimension"], count: int) -> Int64[np.ndarray, " found"]:
        """Candidate rows for the `count` nearest ones, ascending, from which the tuned search starts."""
        return self._propose(query, self._wanted(count), self._effort)

    def _wanted(self, count: int) -> int:
        return math.ceil(self._candidates * max(1, count / TUNED_COUNT))

    def _search_one(
        self,
        query: Queries,
        count: int,
        stored: "_StoredRows",
        dead: Bool[np.ndarray, " count"],
        live: int,
    ) -> Neighbours:
        """Double candidates and effort until enough live rows are found; search all rows as a last resort."""
        wanted, effort = math.ceil(self._wanted(count) * len(self) / live), self._effort
        while wanted <= min(live, self._max_candidates):
            rows = self._propose(query.probes, wanted, effort)
            rows = rows[~dead[rows]]
            if len(rows) >= count:
                return stored.nearest(query, rows, count)
            wanted, effort = 2 * wanted, 2 * effort
        return _search_all(query, count, stored, dead)

    def _propose(
        self, query: Float32[np.ndarray, "1 dimension"], wanted: int, effort: int
    ) -> Int64[np.ndarray, " found"]:
        wanted, effort = min(wanted, len(self)), min(effort, self._max_effort)
        with self._lock, one_thread():
            _, rows = self._index.search(query, wanted, params=self._type.search_parameters(effort))
        # FAISS pads with -1; ascending rows are read fastest.
        return np.sort(rows[rows >= 0])


@dataclass(frozen=True)
class _StoredRows:
    """Stored vectors and their terms, from which similarities are computed."""

    rows_of: RowsOf
    terms: RowTerms | None
    unit_norm: bool

    def nearest(self, query: Queries, rows: Int64[np.ndarray, " rows"], count: int) -> Neighbours:
        """Find the nearest of some rows."""
        terms = self.terms and self.terms.take(rows)
        among = exact_search(self.rows_of(rows), query, count, unit_norm=self.unit_norm, terms=terms)
        return Neighbours(rows[among.rows], among.similarities)


def _search_all(query: Queries, count: int, stored: _StoredRows, dead: Bool[np.ndarray, " count"]) -> Neighbours:
    live, best = np.flatnonzero(~dead), nothing(1)
    for start in range(0, len(live), _BLOCK_ROWS):
        found = stored.nearest(query, live[start : start + _BLOCK_ROWS], count)
        best = merge([best, found], count)
    return best
