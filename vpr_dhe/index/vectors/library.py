"""The FAISS library, imported when it is first needed: importing it takes a noticeable part of a short command."""

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
        MissingExtraError: if two distributions of it overwrite each other.
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
    """Whether this FAISS can search on a GPU of this machine."""
    return import_faiss().get_num_gpus() > 0


@contextmanager
def one_thread() -> Iterator[None]:
    """Let FAISS use no threads for calls from this thread: what is soon done is not worth waking others for."""
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
