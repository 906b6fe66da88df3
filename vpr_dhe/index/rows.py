"""The table of a segment: for each image its id, what its file was, and a checksum for each of its records.

The table is a flat file of fixed little-endian records, mapped into memory; 96 bytes per image are all that an index of
any size has to keep at hand to find an image by id, by path or by content.
"""

import hashlib
import os
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, TypeAlias

import numpy as np
import xxhash
from jaxtyping import Int64

Ids: TypeAlias = Sequence[int] | Int64[np.ndarray, " _images"]
"""Ids of images, in any order."""

ROW = np.dtype(
    [
        ("id", "<i8"),
        ("path_high", "<u8"),
        ("path_low", "<u8"),
        ("content_high", "<u8"),
        ("content_low", "<u8"),
        ("file_bytes", "<i8"),
        ("modified_ns", "<i8"),
        ("image_offset", "<u8"),
        ("image_bytes", "<u8"),
        ("image_check", "<u8"),
        ("map_check", "<u8"),
        ("vector_check", "<u8"),
    ]
)


class Digest(NamedTuple):
    """128 bits of BLAKE2: two different paths, or contents, that share one are not expected in a lifetime."""

    high: int
    low: int

    @classmethod
    def of(cls, content: bytes) -> "Digest":
        """Digest of some bytes."""
        digest = hashlib.blake2b(content, digest_size=16).digest()
        return cls(int.from_bytes(digest[:8], "little"), int.from_bytes(digest[8:], "little"))


@dataclass(frozen=True)
class FileStamp:
    """What an image file was when it was indexed.

    A file of the same size and time is taken to be unchanged without reading it; one of another time is compared by
    content.
    """

    bytes: int
    modified_ns: int
    content: Digest

    @classmethod
    def of(cls, row: np.void) -> "FileStamp":
        """The stamp that a row holds."""
        return cls(
            int(row["file_bytes"]),
            int(row["modified_ns"]),
            Digest(int(row["content_high"]), int(row["content_low"])),
        )

    def describes(self, path: Path) -> bool:
        """Whether a file is still what it was; one that cannot be read is left as it is."""
        try:
            status = path.stat()
            if status.st_size != self.bytes:
                return False
            return status.st_mtime_ns == self.modified_ns or Digest.of(path.read_bytes()) == self.content
        except OSError:
            return True


def modification_time_ns(path: Path) -> int:
    """When a file was last written to, in nanoseconds; 0 for one that cannot be found."""
    with suppress(OSError):
        return path.stat().st_mtime_ns
    return 0


def check_of(record: bytes | memoryview) -> int:
    """Checksum of one record: XXH3, which keeps up with the memory it reads."""
    return xxhash.xxh3_64_intdigest(record)


def path_digest(path: str) -> Digest:
    """Digest of a path; names need not be valid UTF-8."""
    return Digest.of(os.fsencode(path))


class PathTable:
    """Finds images by path: ids sorted by the digests of their paths, 24 bytes per image."""

    def __init__(self, tables: Sequence[np.ndarray], dead: Int64[np.ndarray, " removed"]) -> None:
        ids, high, low = (_column(tables, name) for name in ("id", "path_high", "path_low"))
        live = np.flatnonzero(~np.isin(ids, dead))
        order = live[np.lexsort((low[live], high[live]))]
        self._ids, self._high, self._low = ids[order], high[order], low[order]

    def find(self, path: str) -> int | None:
        """The id of the image at this path, if there is one."""
        wanted = path_digest(path)
        place = int(np.searchsorted(self._high, np.uint64(wanted.high)))
        while place < len(self._high) and self._high[place] == wanted.high:
            if self._low[place] == wanted.low:
                return int(self._ids[place])
            place += 1
        return None


def groups_of_equal_content(tables: Sequence[np.ndarray], dead: Int64[np.ndarray, " removed"]) -> list[tuple[int, ...]]:
    """Ids of images whose files hold the same bytes, group by group, in ascending order."""
    ids, high, low = (_column(tables, name) for name in ("id", "content_high", "content_low"))
    live = np.flatnonzero(~np.isin(ids, dead))
    order = live[np.lexsort((ids[live], low[live], high[live]))]
    same = (high[order][1:] == high[order][:-1]) & (low[order][1:] == low[order][:-1])
    runs = np.split(ids[order], np.flatnonzero(~same) + 1)
    return sorted(tuple(int(id) for id in run) for run in runs if len(run) > 1)


def _column(tables: Iterable[np.ndarray], name: str) -> np.ndarray:
    columns = [table[name] for table in tables]
    return np.concatenate(columns) if columns else np.empty(0, ROW[name])
