"""Search over global descriptors; the only module that imports faiss."""

from dataclasses import dataclass
from importlib import metadata

import numpy as np
from jaxtyping import Float32, Int64

from vpr_dhe.errors import MissingExtraError


def _import_faiss():
    installed = [name for name in ("faiss-cpu", "faiss-gpu-cu12") if _is_installed(name)]
    if len(installed) == 2:
        raise MissingExtraError(
            "faiss-cpu and faiss-gpu-cu12 are both installed and overwrite each other; "
            "uninstall both, then install one of them"
        )
    import faiss

    return faiss


def _is_installed(distribution: str) -> bool:
    try:
        metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return False
    return True


@dataclass(frozen=True)
class Neighbours:
    """Row numbers of the nearest vectors, best first, and their similarities."""

    rows: Int64[np.ndarray, "queries found"]
    similarities: Float32[np.ndarray, "queries found"]


class VectorIndex:
    """Exact search over vectors, by cosine where they are of unit norm and by L2 distance where they are not.

    Both report 1 - d^2 / 2 for the distance d, which for unit vectors is the cosine.
    """

    def __init__(self, vectors: Float32[np.ndarray, "count dimension"], *, unit_norm: bool) -> None:
        faiss = _import_faiss()
        self._unit_norm = unit_norm
        dimension = vectors.shape[1]
        self._index = faiss.IndexFlatIP(dimension) if unit_norm else faiss.IndexFlatL2(dimension)
        self._index.add(np.ascontiguousarray(vectors))

    def search(self, queries: Float32[np.ndarray, "queries dimension"], count: int) -> Neighbours:
        """Find the `count` nearest vectors of each query, or all of them where there are fewer."""
        values, rows = self._index.search(np.ascontiguousarray(queries), min(count, self._index.ntotal))
        similarities = values if self._unit_norm else 1 - values / 2
        return Neighbours(rows, similarities)
