"""Search with the help of a FAISS file: candidates from FAISS, similarities from the stored vectors."""

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
from vpr_dhe.index.vectors.exact import Neighbours, exact_search, merge, nothing
from vpr_dhe.index.vectors.library import import_faiss, one_thread
from vpr_dhe.index.vectors.types import INDEX_TYPES

# The number of neighbours that files are tuned for.
TUNED_COUNT = 100
_GPU_CANDIDATES = 2048  # and lists: as many as FAISS takes on a GPU
_BLOCK_ROWS = 16384

# Rows by number, ascending; whoever holds them checks them as they are read.
RowsOf = Callable[[Int64[np.ndarray, " chosen"]], Float32[np.ndarray, "chosen dimension"]]


@dataclass(frozen=True)
class VectorFileInfo:
    """What the manifest says of a FAISS file.

    `parameters` are the structure's numbers, `effort` (nprobe or efSearch) and `candidates`; `recall_at_1` and
    `recall_at_100`, from 0 to 1, were measured against exact search, with stored vectors as queries.
    """

    kind: str
    count: int
    parameters: Mapping[str, int]
    recall_at_1: float
    recall_at_100: float
    bytes: int


class ApproximateIndex:
    """A FAISS index over rows numbered from 0, for searching; safe to use from several threads.

    Queries are searched one at a time, so that answers do not depend on which queries come together: parts of FAISS
    use matrix products, whose digits do.
    """

    def __init__(self, index: Any, kind: str, parameters: Mapping[str, int], *, unit_norm: bool) -> None:
        self._index, self._type, self._unit_norm = index, INDEX_TYPES[kind](index.ntotal), unit_norm
        self._effort, self._candidates = parameters["effort"], parameters["candidates"]
        self._max_candidates, self._max_effort = len(self), self._type.efforts[-1]
        self._turn: Any = nullcontext()

    @classmethod
    def open(cls, path: Path, fact: VectorFileInfo, *, unit_norm: bool, gpu: bool = False) -> "ApproximateIndex":
        """Open a file; the caller has compared its checksum, since FAISS may load a damaged file and answer wrongly.

        Args:
            path: mapped into memory as far as FAISS can do so: it may be removed or replaced by rename, not changed.
            fact: what the manifest says of the file.
            unit_norm: as in `exact_search`.
            gpu: hold the index on the first GPU.

        Raises:
            IndexDamagedError: if FAISS cannot read the file, or it holds another number of vectors.
            BadInputError: if the type cannot be held on a GPU.
            MissingExtraError: if FAISS finds no GPU.
        """
        faiss = import_faiss()
        flags = 0 if gpu else faiss.IO_FLAG_MMAP_IFC
        try:
            index = faiss.read_index(str(path), flags)
        except RuntimeError as error:
            raise IndexDamagedError(f"{path} cannot be read by FAISS; build it again") from error
        if index.ntotal != fact.count:
            raise IndexDamagedError(f"{path} holds {index.ntotal} vectors instead of {fact.count}; build it again")
        opened = cls(index, fact.kind, fact.parameters, unit_norm=unit_norm)
        if gpu:
            opened._move_to_gpu(fact.kind)
        return opened

    def _move_to_gpu(self, kind: str) -> None:
        faiss = import_faiss()
        if not self._type.on_gpu:
            able = ", ".join(name for name, type in INDEX_TYPES.items() if type.on_gpu)
            raise BadInputError(f"an index of type {kind} cannot be searched on a GPU; use one of {able}")
        if not faiss.get_num_gpus():
            raise MissingExtraError(
                "FAISS finds no GPU; install faiss-gpu-cu12 in place of faiss-cpu, or search on CPU"
            )
        self._resources = faiss.StandardGpuResources()
        self._index = faiss.index_cpu_to_gpu(self._resources, 0, self._index)
        self._max_candidates = min(self._max_candidates, _GPU_CANDIDATES)
        self._max_effort = min(self._max_effort, _GPU_CANDIDATES)
        self._turn = Lock()  # the resources of a GPU serve one thread at a time

    def __len__(self) -> int:
        return self._index.ntotal

    def search(
        self,
        queries: Float32[np.ndarray, "queries dimension"],
        count: int,
        rows_of: RowsOf,
        dead: Bool[np.ndarray, " count"] | None = None,
    ) -> Neighbours:
        """Find about the `count` nearest vectors of each query: exactly so many, unless fewer are live.

        Args:
            queries: finite.
            count: how many to find.
            rows_of: the stored vectors, which the similarities are computed from.
            dead: marks rows that are never found.
        """
        dead = np.zeros(len(self), bool) if dead is None else dead
        live = len(self) - int(dead.sum())
        count = min(count, live)
        if not (count and len(queries)):
            return nothing(len(queries))
        found = [self._search_one(query[None], count, rows_of, dead, live) for query in queries]
        return Neighbours(
            np.concatenate([one.rows for one in found]), np.concatenate([one.similarities for one in found])
        )

    def candidates(self, query: Float32[np.ndarray, "1 dimension"], count: int) -> Int64[np.ndarray, " found"]:
        """Rows among which to look for the `count` nearest ones, ascending: what the tuned search begins with."""
        return self._propose(query, self._wanted(count), self._effort)

    def _wanted(self, count: int) -> int:
        return math.ceil(self._candidates * max(1, count / TUNED_COUNT))

    def _search_one(
        self,
        query: Float32[np.ndarray, "1 dimension"],
        count: int,
        rows_of: RowsOf,
        dead: Bool[np.ndarray, " count"],
        live: int,
    ) -> Neighbours:
        """Ask for more, and more thoroughly, until enough live rows are found; look at all where those are no more."""
        wanted, effort = math.ceil(self._wanted(count) * len(self) / live), self._effort
        while wanted <= min(live, self._max_candidates):
            rows = self._propose(query, wanted, effort)
            rows = rows[~dead[rows]]
            if len(rows) >= count:
                return self._refine(query, rows, count, rows_of)
            wanted, effort = 2 * wanted, 2 * effort
        return self._search_all(query, count, rows_of, dead)

    def _propose(
        self, query: Float32[np.ndarray, "1 dimension"], wanted: int, effort: int
    ) -> Int64[np.ndarray, " found"]:
        wanted, effort = min(wanted, len(self)), min(effort, self._max_effort)
        with self._turn, one_thread():
            _, rows = self._index.search(query, wanted, params=self._type.search_parameters(effort))
        # FAISS pads with -1; ascending rows are the quickest to read.
        return np.sort(rows[rows >= 0])

    def _refine(
        self, query: Float32[np.ndarray, "1 dimension"], rows: Int64[np.ndarray, " rows"], count: int, rows_of: RowsOf
    ) -> Neighbours:
        among = exact_search(rows_of(rows), query, count, unit_norm=self._unit_norm)
        return Neighbours(rows[among.rows], among.similarities)

    def _search_all(
        self, query: Float32[np.ndarray, "1 dimension"], count: int, rows_of: RowsOf, dead: Bool[np.ndarray, " count"]
    ) -> Neighbours:
        live, best = np.flatnonzero(~dead), nothing(1)
        for start in range(0, len(live), _BLOCK_ROWS):
            found = self._refine(query, live[start : start + _BLOCK_ROWS], count, rows_of)
            best = merge([best, found], count)
        return best
