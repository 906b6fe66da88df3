"""Local maps on disk: records of a fixed size in a flat file, read by offset and checked one by one."""

import os
import weakref
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path
from typing import TypeAlias

import numpy as np
from jaxtyping import UInt8, UInt64

from vpr_dhe.index.files import damage
from vpr_dhe.index.rows import check_of
from vpr_dhe.runtime.threads import has_one_core, split_evenly

# Fewer records are read in less time than it takes to wake another thread.
_WORTH_A_THREAD = 16


class LocalMapFile:
    """Local maps of one segment, read from disk on each access.

    The open file stays readable after a compaction deletes its name.
    """

    def __init__(self, path: Path, record_bytes: int, checks: UInt64[np.ndarray, " count"]) -> None:
        self._path, self.record_bytes, self._checks = path, record_bytes, checks
        self._descriptor = os.open(path, os.O_RDONLY)
        weakref.finalize(self, os.close, self._descriptor)
        # Candidates of a query lie anywhere in the file, so reading ahead is useless.
        os.posix_fadvise(self._descriptor, 0, 0, os.POSIX_FADV_RANDOM)

    def read_if_cached(self, row: int, record: UInt8[np.ndarray, " record_bytes"]) -> bool:
        """Read one record if the page cache holds it; otherwise have the disk fetch it, and return False.

        Raises:
            IndexDamagedError: if it does not agree with its checksum.
        """
        offset = row * self.record_bytes
        try:
            read = os.preadv(self._descriptor, [record.data], offset, os.RWF_NOWAIT)
        except OSError:  # not cached, or not supported by the file system
            read = 0
        if read == self.record_bytes:
            self._require_sound(row, record)
            return True
        os.posix_fadvise(self._descriptor, offset, self.record_bytes, os.POSIX_FADV_WILLNEED)
        return False

    def read_into(self, row: int, record: UInt8[np.ndarray, " record_bytes"]) -> None:
        """Read one record.

        Raises:
            IndexDamagedError: if it does not agree with its checksum, or is missing.
        """
        if os.preadv(self._descriptor, [record.data], row * self.record_bytes) != self.record_bytes:
            raise damage(self._path, f"ends before the local map of row {row}")
        self._require_sound(row, record)

    def _require_sound(self, row: int, record: UInt8[np.ndarray, " record_bytes"]) -> None:
        if check_of(record.data) != self._checks[row]:
            raise damage(self._path, f"does not agree with its checksum in the local map of row {row}")


RecordPlace: TypeAlias = tuple[LocalMapFile, int, UInt8[np.ndarray, " record_bytes"]]
"""A record of a file by its row, and the memory to read it into."""


def read_map_records(places: Sequence[RecordPlace]) -> None:
    """Read records, on two cores if there are many and torch may use two.

    Raises:
        IndexDamagedError: if one does not agree with its checksum.
    """
    if len(places) < _WORTH_A_THREAD or has_one_core():
        _read(places)
        return
    # From the page cache, two cores copy faster than one. A thread of its own may wait for the disk.
    here, there = split_evenly(places, 2)
    other = _thread(os.getpid()).submit(_read, there)
    _read(here)
    other.result()


def _read(places: Sequence[RecordPlace]) -> None:
    """Read cached records first, while the disk fetches the others."""
    waiting = [(file, row, record) for file, row, record in places if not file.read_if_cached(row, record)]
    for file, row, record in waiting:
        file.read_into(row, record)


@cache
def _thread(process: int) -> ThreadPoolExecutor:  # noqa: ARG001 (threads do not survive a fork)
    return ThreadPoolExecutor(1, thread_name_prefix="local-maps")
