"""Local maps on disk: records of one fixed size in a flat file, read by offset, each under its own checksum."""

import os
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO

import numpy as np
import torch
from jaxtyping import Float, UInt32
from torch import Tensor

from vpr_dhe.errors import IndexDamagedError

CODEC = "float16"
_STORED = np.dtype("<f2")


def record_bytes(cells: int, dimension: int) -> int:
    """Size of one encoded local map."""
    return cells * dimension * _STORED.itemsize


def encode(local_map: Float[Tensor, "cells dimension"]) -> bytes:
    """Encode one local map as little-endian half precision, row-major."""
    return local_map.cpu().numpy().astype(_STORED).tobytes()


class LocalMapFile:
    """Reads single maps of one segment; nothing of the file stays in memory."""

    def __init__(self, path: Path, cells: int, dimension: int, checksums: UInt32[np.ndarray, " count"]) -> None:
        self._path, self._cells, self._dimension = path, cells, dimension
        self._record_bytes = record_bytes(cells, dimension)
        self._checksums = checksums
        self._file: BinaryIO = path.open("rb")
        # Candidates of a query lie anywhere in the file: reading ahead would only evict what others need.
        os.posix_fadvise(self._file.fileno(), 0, 0, os.POSIX_FADV_RANDOM)

    def read(self, rows: Sequence[int]) -> Float[Tensor, "maps cells dimension"]:
        """Read the maps of these rows.

        Raises:
            IndexDamagedError: if the bytes of one do not agree with its checksum, or are missing.
        """
        stored = np.empty((len(rows), self._cells, self._dimension), _STORED)
        for place, row in zip(stored, rows, strict=True):
            record = os.pread(self._file.fileno(), self._record_bytes, row * self._record_bytes)
            if len(record) != self._record_bytes or zlib.crc32(record) != self._checksums[row]:
                raise IndexDamagedError(
                    f"the local map of image {row} in {self._path} does not agree with its checksum; "
                    "run `vpr-dhe check` on the index, then index these images again"
                )
            place[...] = np.frombuffer(record, _STORED).reshape(place.shape)
        return torch.from_numpy(stored).float()

    def close(self) -> None:
        """Release the file."""
        self._file.close()
