"""Approximate search: candidates from a FAISS file, similarities from the stored vectors."""

import math
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
from jaxtyping import Bool, Int64

from vpr_dhe.errors import BadInputError, IndexDamagedError, MissingExtraError
from vpr_dhe.index.vectors.exact import Neighbours, Queries, RowsOf, RowTerms, nothing, search_rows, together
from vpr_dhe.index.vectors.faiss_library import import_faiss, one_thread
from vpr_dhe.index.vectors.types import INDEX_TYPES, FileBlock

# Number of neighbours that files are tuned for.
TUNED_COUNT = 100
_GPU_CANDIDATES = 2048  # limit of FAISS on a GPU, also for lists
# Up to this many rows, a search among some rows compares all of them; comparing so many takes milliseconds.
EXACT_ROWS = 1 << 15


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
        self._parameters: dict[int, Any] = {}
        self._lock: Any = nullcontext()
        self._on_gpu = False

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
        read = faiss.read_index_binary if INDEX_TYPES[info.kind].of_codes else faiss.read_index
        try:
            index = read(str(path), flags)
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
        self._on_gpu = True
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
        *,
        among: Int64[np.ndarray, " chosen"] | None = None,
    ) -> Neighbours:
        """Find approximately the `count` nearest vectors of each query, or all if there are fewer.

        Among at most `EXACT_ROWS` chosen rows, and on a GPU, the result is exact; among more, FAISS proposes chosen
        rows only.

        Args:
            queries: query descriptors, finite, with binary codes if the file is of codes.
            count: number of vectors to find.
            rows_of: stored vectors, from which similarities are computed.
            dead: mask of rows to ignore.
            terms: of all rows, for adapted queries.
            among: rows to search, ascending; None searches all.

        Raises:
            BadInputError: if the file is of binary codes, and the queries have none.
        """
        stored = _StoredRows(rows_of, terms, self._unit_norm)
        if among is not None:
            among = _live(among, dead)
            if len(among) <= EXACT_ROWS or self._on_gpu:
                return stored.nearest(queries, among, min(count, len(among)))
            dead = ~_mask(among, len(self))
        live = len(self) - (0 if dead is None else int(np.count_nonzero(dead)))
        count = min(count, live)
        if not (count and len(queries)):
            return nothing(len(queries))
        selector = None if among is None or dead is None else _selector(~dead)
        return together(
            [
                self._search_one(queries[number : number + 1], count, stored, dead, live, selector)
                for number in range(len(queries))
            ]
        )

    def candidates(self, query: FileBlock, count: int) -> Int64[np.ndarray, " found"]:
        """Candidate rows for the `count` nearest ones to a row, ascending, from which the tuned search starts."""
        return self._propose(query, self._wanted(count), self._effort)

    def _wanted(self, count: int) -> int:
        return math.ceil(self._candidates * max(1, count / TUNED_COUNT))

    def _search_one(
        self,
        query: Queries,
        count: int,
        stored: "_StoredRows",
        dead: Bool[np.ndarray, " count"] | None,
        live: int,
        selector: Any,
    ) -> Neighbours:
        """Double candidates and effort until enough live rows are found; search all rows as a last resort.

        With a selector of FAISS, all candidates are live, but the effort is spent on the others, too.
        """
        wanted, effort = math.ceil(self._wanted(count) * len(self) / live), self._effort
        if selector is not None:
            wanted, effort = self._wanted(count), math.ceil(effort * len(self) / live)
        while wanted <= min(live, self._max_candidates):
            rows = _live(self._propose(self._probe(query), wanted, effort, selector), dead)
            if len(rows) >= count:
                return stored.nearest(query, rows, count)
            wanted, effort = 2 * wanted, 2 * effort
        return stored.nearest(query, _live(np.arange(len(self)), dead), count)

    def _probe(self, query: Queries) -> FileBlock:
        """Form of a query that is compared with the rows of the file."""
        if not self._type.of_codes:
            return query.probes
        if query.codes is None:
            raise BadInputError(
                "the index is searched by binary codes, and the query has none; pass the code that its features have"
            )
        return query.codes

    def _propose(self, query: FileBlock, wanted: int, effort: int, selector: Any = None) -> Int64[np.ndarray, " found"]:
        wanted, effort = min(wanted, len(self)), min(effort, self._max_effort)
        with self._lock, one_thread():
            _, rows = self._index.search(query, wanted, params=self._search_parameters(effort, selector))
        # FAISS pads with -1; ascending rows are read fastest.
        return np.sort(rows[rows >= 0])

    def _search_parameters(self, effort: int, selector: Any) -> Any:
        """Parameters of FAISS, made once per effort, because making them takes a tenth of a short search."""
        if selector is not None:
            return self._type.search_parameters(effort, selector)
        if effort not in self._parameters:
            self._parameters[effort] = self._type.search_parameters(effort)
        return self._parameters[effort]


@dataclass(frozen=True)
class _StoredRows:
    """Stored vectors and their terms, from which similarities are computed."""

    rows_of: RowsOf
    terms: RowTerms | None
    unit_norm: bool

    def nearest(self, query: Queries, rows: Int64[np.ndarray, " rows"], count: int) -> Neighbours:
        """Find the nearest of some rows."""
        return search_rows(rows, self.rows_of, query, count, unit_norm=self.unit_norm, terms=self.terms)


def _live(rows: Int64[np.ndarray, " rows"], dead: Bool[np.ndarray, " count"] | None) -> Int64[np.ndarray, " live"]:
    return rows if dead is None else rows[~dead[rows]]


def _mask(rows: Int64[np.ndarray, " chosen"], count: int) -> Bool[np.ndarray, " count"]:
    mask = np.zeros(count, bool)
    mask[rows] = True
    return mask


def _selector(live: Bool[np.ndarray, " count"]) -> Any:
    """Selector of FAISS for some rows."""
    return import_faiss().IDSelectorBitmap(np.packbits(live, bitorder="little"))
