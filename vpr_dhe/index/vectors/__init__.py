"""Search over global descriptors; the only package that imports faiss.

`exact.py` is exact search; `types.py` lists the FAISS index types; `build.py` builds and tunes a FAISS file;
`approximate.py` searches one.
"""

from vpr_dhe.index.vectors.approximate import EXACT_ROWS, ApproximateIndex, VectorFileInfo
from vpr_dhe.index.vectors.build import build_vector_file
from vpr_dhe.index.vectors.exact import (
    Neighbours,
    Queries,
    RowsOf,
    RowTerms,
    exact_search,
    merge,
    search_rows,
    similarities,
)
from vpr_dhe.index.vectors.faiss_library import gpu_is_present
from vpr_dhe.index.vectors.stack import FileRows, Stack
from vpr_dhe.index.vectors.types import BINARY_CODES, FLAT, INDEX_TYPES, choose_type

__all__ = [
    "BINARY_CODES",
    "EXACT_ROWS",
    "FLAT",
    "INDEX_TYPES",
    "ApproximateIndex",
    "FileRows",
    "Neighbours",
    "Queries",
    "RowTerms",
    "RowsOf",
    "Stack",
    "VectorFileInfo",
    "build_vector_file",
    "choose_type",
    "exact_search",
    "gpu_is_present",
    "merge",
    "search_rows",
    "similarities",
]
