"""Types of FAISS indexes; a new one is one class and one line of `INDEX_TYPES`.

All order by L2 distance, which for vectors of unit norm is the order of the cosine. They only propose candidates, which
are then compared exactly, so the compression of a type costs recall but no precision of similarities.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar, TypeAlias

import numpy as np
from jaxtyping import Float32, UInt8

from vpr_dhe.index.vectors.faiss_library import import_faiss, one_thread

FLAT, BINARY_CODES = "flat", "binary-codes"
PUBLISHED_CANDIDATES = 100
"""Candidates by binary codes that descriptors order in the evaluation of SelaVPR++.

Source: https://github.com/Lu-Feng/SelaVPRplusplus, `rerank_num` and the largest of `recall_values` in `parser.py`.
"""
# Multiples of that to try, where the 100 nearest descriptors are asked for.
_OVERSAMPLING = (1.5, 2, 3, 4, 6, 8, 12, 16)
SEED = 7

FileBlock: TypeAlias = Float32[np.ndarray, "rows dimension"] | UInt8[np.ndarray, "rows code_bytes"]
"""Rows of a FAISS file: descriptors, or binary codes."""


class IndexType(ABC):
    """Builder of a FAISS index over `count` vectors, and its tunable parameters.

    `shape` are parameters that follow from the number of vectors, `training_rows` is the size of the training sample.
    `efforts` and `candidates` are the values to try for the 100 nearest neighbours, ascending. `on_gpu` tells whether
    FAISS supports the type on a GPU, `of_codes` whether its rows are binary codes instead of descriptors.
    """

    on_gpu: ClassVar[bool] = False
    of_codes: ClassVar[bool] = False
    candidates: ClassVar[tuple[int, ...]]
    shape: dict[str, int]
    training_rows: int
    efforts: Sequence[int]

    @abstractmethod
    def __init__(self, count: int) -> None: ...

    @abstractmethod
    def train(self, sample: FileBlock) -> Any:
        """Train an empty FAISS index on a sample."""

    def add(self, index: Any, block: FileBlock) -> None:
        """Add vectors."""
        index.add(block)

    @abstractmethod
    def search_parameters(self, effort: int, selector: Any = None) -> Any:
        """Make the search parameters of FAISS for an effort and, to search some rows only, a selector of FAISS."""


class Flat(IndexType):
    """Uncompressed vectors: 4 bytes per dimension. On a CPU, `exact_search` does the same without a file."""

    on_gpu = True
    candidates = (128,)  # more than 100, since similarities on a GPU differ in the last digits

    def __init__(self, count: int) -> None:  # noqa: ARG002
        self.shape, self.training_rows, self.efforts = {}, 0, (1,)

    def train(self, sample: FileBlock) -> Any:
        """Make an empty index, which needs no training."""
        return import_faiss().IndexFlatL2(sample.shape[1])

    def search_parameters(self, effort: int, selector: Any = None) -> Any:  # noqa: ARG002
        """Return None without a selector, because there are no parameters."""
        return None if selector is None else import_faiss().SearchParameters(sel=selector)


class Hnsw(IndexType):
    """Graph of neighbours (Malkov and Yashunin, 2018); the effort is efSearch.

    Memory holds 1 byte per dimension and about 272 bytes of links per vector.
    """

    candidates = (150,)
    _LINKS = 32

    def __init__(self, count: int) -> None:  # noqa: ARG002
        self.shape, self.training_rows = {"links": self._LINKS}, 65536
        self.efforts = _steps(64, 8192)

    def train(self, sample: FileBlock) -> Any:
        """Train the range of each dimension."""
        faiss = import_faiss()
        index = faiss.IndexHNSWSQ(sample.shape[1], faiss.ScalarQuantizer.QT_8bit, self._LINKS)
        index.train(sample)
        return index

    def add(self, index: Any, block: FileBlock) -> None:
        """Add vectors in one thread, because the links that several threads make are not deterministic."""
        with one_thread():
            index.add(block)

    def search_parameters(self, effort: int, selector: Any = None) -> Any:
        """Set efSearch, the length of the list of nearest nodes."""
        return import_faiss().SearchParametersHNSW(efSearch=effort, sel=selector)


class InvertedFile(IndexType):
    """Lists of vectors by nearest centroid (Jegou et al., 2011); the effort is nprobe, the number of lists searched.

    Lists are mapped from the file, so the page cache holds those that were searched.
    """

    def __init__(self, count: int) -> None:
        # The number of centroids and the length of lists both grow as the square root.
        self._lists = max(1, min(int(4 * math.sqrt(count)), count // 39))
        self.shape, self.training_rows = {"nlist": self._lists}, 64 * self._lists  # 39 per list is FAISS's minimum
        self.efforts = _steps(1, self._lists)

    def train(self, sample: FileBlock) -> Any:
        """Cluster the sample."""
        index = self._empty(sample.shape[1])
        lists = import_faiss().extract_index_ivf(index)
        lists.cp.seed, lists.cp.min_points_per_centroid = SEED, 1  # avoids a warning for few images
        index.train(sample)
        return index

    def _centroids(self, dimension: int) -> Any:
        return import_faiss().IndexFlatL2(dimension)

    @abstractmethod
    def _empty(self, dimension: int) -> Any:
        """Make an untrained FAISS index."""

    def search_parameters(self, effort: int, selector: Any = None) -> Any:
        """Set nprobe."""
        return import_faiss().SearchParametersIVF(nprobe=effort, sel=selector)


class IvfFlat(InvertedFile):
    """Lists of uncompressed vectors: 4 bytes per dimension and 8 per vector."""

    on_gpu = True
    candidates = (128,)

    def _empty(self, dimension: int) -> Any:
        faiss = import_faiss()
        return faiss.IndexIVFFlat(self._centroids(dimension), dimension, self._lists, faiss.METRIC_L2)


class IvfSq8(InvertedFile):
    """Lists of vectors in eight bits per dimension: 1 byte per dimension and 8 per vector."""

    on_gpu = True
    candidates = (150,)

    def _empty(self, dimension: int) -> Any:
        faiss = import_faiss()
        code = faiss.ScalarQuantizer.QT_8bit
        return faiss.IndexIVFScalarQuantizer(self._centroids(dimension), dimension, self._lists, code, faiss.METRIC_L2)


class RaBitQ(InvertedFile):
    """Lists of vectors in one bit per dimension (Gao and Long, 2024): 1 byte per 8 dimensions and 16 per vector.

    Vectors are rotated at random first (theorem 3.2 of the paper), which finds more neighbours
    (`docs/experiments/notes.md`).
    """

    candidates = (200, 300, 400, 600, 800, 1200, 1600)

    def _empty(self, dimension: int) -> Any:
        faiss = import_faiss()
        rotation = faiss.RandomRotationMatrix(dimension, dimension)
        rotation.init(SEED)
        lists = faiss.IndexIVFRaBitQ(self._centroids(dimension), dimension, self._lists, faiss.METRIC_L2)
        return faiss.IndexPreTransform(rotation, lists)

    def search_parameters(self, effort: int, selector: Any = None) -> Any:
        """Set nprobe, and 8 bits per dimension of the query, which are as good as single precision and faster."""
        faiss = import_faiss()
        lists = faiss.IVFRaBitQSearchParameters(nprobe=effort, qb=8, sel=selector)
        return faiss.SearchParametersPreTransform(index_params=lists)


class BinaryCodes(IndexType):
    """Binary codes that the model has learned, all compared by Hamming distance: 1 byte per 8 bits.

    Descriptors order the candidates, as in SelaVPR++ (Lu et al., TPAMI 2025), which takes 100; here, their number is
    tuned as for other types.
    """

    of_codes = True
    candidates = tuple(round(PUBLISHED_CANDIDATES * factor) for factor in _OVERSAMPLING)

    def __init__(self, count: int) -> None:  # noqa: ARG002
        self.shape, self.training_rows, self.efforts = {}, 1, (1,)

    def train(self, sample: FileBlock) -> Any:
        """Make an empty index, which needs no training but the length of codes."""
        return import_faiss().IndexBinaryFlat(8 * sample.shape[1])

    def search_parameters(self, effort: int, selector: Any = None) -> Any:  # noqa: ARG002
        """Return None without a selector, because there are no parameters."""
        return None if selector is None else import_faiss().SearchParameters(sel=selector)


def _steps(first: int, last: int) -> list[int]:
    """Numbers from the first to the last, each about 1.4 times the previous one."""
    steps = [first]
    while steps[-1] < last:
        steps.append(min(last, max(steps[-1] + 1, round(steps[-1] * math.sqrt(2)))))
    return steps


INDEX_TYPES: dict[str, type[IndexType]] = {
    FLAT: Flat,
    "hnsw": Hnsw,
    "ivf-flat": IvfFlat,
    "ivf-sq8": IvfSq8,
    "rabitq": RaBitQ,
    BINARY_CODES: BinaryCodes,
}


# Exact search in 100 000 vectors takes less time than extraction. Beyond, a graph is fastest, until its 656 bytes per
# vector no longer fit into memory; RaBitQ takes 71 (`benchmarks/scale.py`; figures in `docs/experiments/notes.md`).
_FLAT_BELOW = 100_000
_GRAPH_BELOW = 10_000_000


def choose_type(count: int) -> str:
    """Default index type for a number of images."""
    if count < _FLAT_BELOW:
        return FLAT
    return "hnsw" if count < _GRAPH_BELOW else "rabitq"
