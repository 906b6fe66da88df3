"""The ways in which FAISS can hold vectors; one class and one line of `INDEX_TYPES` per type.

All of them order by L2 distance, which for vectors of unit norm is the order of the cosine. They only propose
candidates, and exact similarities decide, so what a type leaves out of a vector costs candidates but no digits.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
from jaxtyping import Float32

from vpr_dhe.index.vectors.library import import_faiss, one_thread

FLAT = "flat"
SEED = 7


class IndexType(ABC):
    """How to make one type of FAISS index over `count` vectors, and what of its search is to be tuned.

    `shape` is what is chosen by the number of vectors alone, `training_rows` how many are to be learnt from, `efforts`
    what a search can spend, ascending, and `candidates` the numbers of candidates worth trying for the 100 nearest
    neighbours, ascending. `on_gpu` says whether FAISS can hold the type on a GPU.
    """

    on_gpu: ClassVar[bool] = False
    candidates: ClassVar[tuple[int, ...]]
    shape: dict[str, int]
    training_rows: int
    efforts: Sequence[int]

    @abstractmethod
    def __init__(self, count: int) -> None: ...

    @abstractmethod
    def train(self, sample: Float32[np.ndarray, "rows dimension"]) -> Any:
        """An empty FAISS index that has learnt from a sample."""

    def add(self, index: Any, block: Float32[np.ndarray, "rows dimension"]) -> None:
        """Add some vectors."""
        index.add(block)

    @abstractmethod
    def search_parameters(self, effort: int) -> Any:
        """What FAISS takes to search with this effort."""


class Flat(IndexType):
    """Every vector as it is: 4 bytes per dimension. On a CPU, `exact_search` does the same without a file."""

    on_gpu = True
    candidates = (128,)  # some to spare, since the similarities of a GPU differ in the last digits

    def __init__(self, count: int) -> None:  # noqa: ARG002
        self.shape, self.training_rows, self.efforts = {}, 0, (1,)

    def train(self, sample: Float32[np.ndarray, "rows dimension"]) -> Any:
        """Nothing is learnt."""
        return import_faiss().IndexFlatL2(sample.shape[1])

    def search_parameters(self, effort: int) -> Any:  # noqa: ARG002
        """There is no choice."""
        return None


class Hnsw(IndexType):
    """A graph of neighbours (Malkov and Yashunin, 2018); the effort is efSearch.

    Memory holds 1 byte per dimension and about 272 bytes of links per vector. Eight bits per dimension make the file
    2.8 times smaller at 384 dimensions, and search and building faster, than a whole copy of the vectors would.
    """

    candidates = (150,)
    _LINKS = 32

    def __init__(self, count: int) -> None:  # noqa: ARG002
        self.shape, self.training_rows = {"links": self._LINKS}, 65536
        self.efforts = _steps(64, 8192)

    def train(self, sample: Float32[np.ndarray, "rows dimension"]) -> Any:
        """Learn the range of each dimension."""
        faiss = import_faiss()
        index = faiss.IndexHNSWSQ(sample.shape[1], faiss.ScalarQuantizer.QT_8bit, self._LINKS)
        index.train(sample)
        return index

    def add(self, index: Any, block: Float32[np.ndarray, "rows dimension"]) -> None:
        """Add some vectors, in one thread: several link what they happen to see, and no two builds answer alike."""
        with one_thread():
            index.add(block)

    def search_parameters(self, effort: int) -> Any:
        """Sets efSearch, the number of nodes at hand while searching."""
        return import_faiss().SearchParametersHNSW(efSearch=effort)


class InvertedFile(IndexType):
    """Vectors in lists by their nearest centroid (Jegou et al., 2011); the effort is the number of lists searched.

    The lists are mapped from the file: memory holds those that were searched, for as long as there is room.
    """

    def __init__(self, count: int) -> None:
        # A query is compared with all centroids and with the vectors of some lists: both grow as the square root.
        self._lists = max(1, min(int(4 * math.sqrt(count)), count // 39))
        self.shape, self.training_rows = {"nlist": self._lists}, 64 * self._lists  # 39 per list is FAISS's minimum
        self.efforts = _steps(1, self._lists)

    def train(self, sample: Float32[np.ndarray, "rows dimension"]) -> Any:
        """Cluster the sample."""
        index = self._empty(sample.shape[1])
        lists = import_faiss().extract_index_ivf(index)
        lists.cp.seed, lists.cp.min_points_per_centroid = SEED, 1  # a warning about a few images would help no one
        index.train(sample)
        return index

    def _centroids(self, dimension: int) -> Any:
        return import_faiss().IndexFlatL2(dimension)

    @abstractmethod
    def _empty(self, dimension: int) -> Any:
        """An untrained FAISS index."""

    def search_parameters(self, effort: int) -> Any:
        """Sets nprobe, the number of lists searched."""
        return import_faiss().SearchParametersIVF(nprobe=effort)


class IvfFlat(InvertedFile):
    """Lists of vectors as they are: 4 bytes per dimension and 8 per vector."""

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

    Vectors are turned at random first, as the paper's theorem 3.2 asks: among 200 candidates at 384 dimensions this
    finds 85 % of the neighbours instead of 67 %.
    """

    candidates = (200, 300, 400, 600, 800, 1200, 1600)

    def _empty(self, dimension: int) -> Any:
        faiss = import_faiss()
        turn = faiss.RandomRotationMatrix(dimension, dimension)
        turn.init(SEED)
        lists = faiss.IndexIVFRaBitQ(self._centroids(dimension), dimension, self._lists, faiss.METRIC_L2)
        return faiss.IndexPreTransform(turn, lists)

    def search_parameters(self, effort: int) -> Any:
        """Sets nprobe, and 8 bits per dimension of the query: as good as single precision, and 70 times as fast."""
        faiss = import_faiss()
        lists = faiss.IVFRaBitQSearchParameters(nprobe=effort, qb=8)
        return faiss.SearchParametersPreTransform(index_params=lists)


def _steps(first: int, last: int) -> list[int]:
    """Numbers from the first to the last, each about 1.4 times the one before."""
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
}


# Measured by benchmarks/scale.py at 384 dimensions on two busy cores, medians of single queries: comparing with all of
# 100 000 vectors takes 12 ms, less than describing the query takes, and nothing has to be built. A graph answers in
# 0.7 ms at 100 000 and in 3 ms at 1 000 000, and of all types reads the fewest stored vectors. Its 656 bytes per vector
# are all visited at random: at ten millions they fill half of a 16 GB machine, where RaBitQ needs 71, for 5 ms.
_FLAT_BELOW = 100_000
_GRAPH_BELOW = 10_000_000


def choose_type(count: int) -> str:
    """The type for a map of this many images, where the user leaves it open."""
    if count < _FLAT_BELOW:
        return FLAT
    return "hnsw" if count < _GRAPH_BELOW else "rabitq"
