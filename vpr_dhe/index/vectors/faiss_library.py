"""Import of FAISS on first use, because it takes noticeable time."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from importlib import metadata
from typing import Any

from vpr_dhe.errors import MissingExtraError


@cache
def import_faiss() -> Any:
    """Import FAISS.

    Raises:
        MissingExtraError: if two distributions, which overwrite each other, are installed.
    """
    installed = [name for name in ("faiss-cpu", "faiss-gpu-cu12") if _is_installed(name)]
    if len(installed) == 2:
        raise MissingExtraError(
            "faiss-cpu and faiss-gpu-cu12 are both installed and overwrite each other; "
            "uninstall both, then install one of them"
        )
    import faiss

    return faiss


def gpu_is_present() -> bool:
    """Whether FAISS finds a GPU that it can use."""
    return import_faiss().get_num_gpus() > 0


@contextmanager
def one_thread() -> Iterator[None]:
    """Limit FAISS to one thread for calls from this thread, which is faster for short work."""
    faiss = import_faiss()
    threads = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(1)
    try:
        yield
    finally:
        faiss.omp_set_num_threads(threads)


def _is_installed(distribution: str) -> bool:
    try:
        metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return False
    return True
