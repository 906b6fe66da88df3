"""Table of a segment: id, file stamp and checksums of the records of each image.

The table is a flat file of little-endian records, mapped into memory: 96 bytes per image to find images by id, by path
or by content.
"""

import hashlib
import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple, TypeAlias

import numpy as np
import xxhash
from jaxtyping import Int64, UInt64

from vpr_dhe.images.view_names import View, file_of, view_of

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
    """BLAKE2 digest of 128 bits, for which collisions are not to be expected."""

    high: int
    low: int

    @classmethod
    def of(cls, content: bytes, view: View | None = None) -> "Digest":
        """Compute the digest of bytes, or of a view of the panorama in them: views are no copies of each other."""
        hashed = hashlib.blake2b(content, digest_size=16)
        if view is not None:
            hashed.update(f"#{view.yaw_deg}".encode())
        digest = hashed.digest()
        return cls(int.from_bytes(digest[:8], "little"), int.from_bytes(digest[8:], "little"))


@dataclass(frozen=True)
class FileStamp:
    """Size, modification time and content digest of an image file when it was indexed."""

    bytes: int
    modified_ns: int
    content: Digest

    @classmethod
    def of(cls, row: np.void) -> "FileStamp":
        """Read the stamp of a row."""
        return cls(
            int(row["file_bytes"]),
            int(row["modified_ns"]),
            Digest(int(row["content_high"]), int(row["content_low"])),
        )

    def matches(self, path: Path) -> bool:
        """Whether a file is unchanged: same size and time, or same content. Unreadable files count as unchanged."""
        return self.renewed(path) is not None

    def renewed(self, path: Path) -> "FileStamp | None":
        """This stamp with the present time of a file that `matches`, or as it is if that is unreadable; else None."""
        view = view_of(path)
        file = path if view is None else view.file
        try:
            status = file.stat()
            if status.st_size != self.bytes:
                return None
            if status.st_mtime_ns == self.modified_ns:
                return self
            same = Digest.of(file.read_bytes(), view) == self.content
        except OSError:
            return self
        return replace(self, modified_ns=status.st_mtime_ns) if same else None


def modification_time_ns(path: Path) -> int:
    """Modification time of a file in nanoseconds; 0 if it does not exist."""
    with suppress(OSError):
        return file_of(path).stat().st_mtime_ns
    return 0


def check_of(record: bytes | memoryview) -> int:
    """Checksum of a record (XXH3, as fast as memory)."""
    return xxhash.xxh3_64_intdigest(record)


def path_digest(path: str) -> Digest:
    """Digest of a path; names need not be valid UTF-8."""
    return Digest.of(os.fsencode(path))


def path_digests(paths: Iterable[str]) -> UInt64[np.ndarray, "_paths 2"]:
    """Digests of many paths, as `path_digest` computes each; one row (high, low) per path."""
    digests = (hashlib.blake2b(os.fsencode(path), digest_size=16).digest() for path in paths)
    return np.frombuffer(b"".join(digests), "<u8").reshape(-1, 2)


class PathTable:
    """Lookup of images by path: ids sorted by digests of paths, 24 bytes per image."""

    def __init__(self, tables: Sequence[np.ndarray]) -> None:
        ids, high, low = (_column(tables, name) for name in ("id", "path_high", "path_low"))
        order = np.argsort(high)
        self._ids, self._high, self._low = ids[order], high[order], low[order]

    def ids_of(self, wanted: Digest) -> Iterator[int]:
        """Yield the ids of images at a path, given by its digest, with those that were removed since."""
        place = int(np.searchsorted(self._high, np.uint64(wanted.high)))
        while place < len(self._high) and self._high[place] == wanted.high:
            if self._low[place] == wanted.low:
                yield int(self._ids[place])
            place += 1

    def first_ids_of(self, wanted: UInt64[np.ndarray, "_paths 2"]) -> Int64[np.ndarray, " _paths"]:
        """First id of the images at each of many paths, given by their digests; -1 where there is none."""
        ids = np.full(len(wanted), -1, np.int64)
        if not len(self._ids):
            return ids
        # The first of equal digests; in order, a search stays in the cache.
        order = np.argsort(wanted[:, 0])
        places = np.searchsorted(self._high, wanted[order, 0])
        within = places < len(self._high)
        order, places = order[within], places[within]
        same_high = self._high[places] == wanted[order, 0]
        same = same_high & (self._low[places] == wanted[order, 1])
        ids[order[same]] = self._ids[places[same]]
        for row in order[same_high & ~same].tolist():  # two paths share half of their digest
            ids[row] = next(self.ids_of(Digest(*wanted[row].tolist())), -1)
        return ids


def groups_of_equal_content(tables: Sequence[np.ndarray], dead: Int64[np.ndarray, " removed"]) -> list[tuple[int, ...]]:
    """Groups of ids of images with the same file content, ascending."""
    ids, high, low = (_column(tables, name) for name in ("id", "content_high", "content_low"))
    live = np.flatnonzero(~np.isin(ids, dead))
    order = live[np.lexsort((ids[live], low[live], high[live]))]
    same = (high[order][1:] == high[order][:-1]) & (low[order][1:] == low[order][:-1])
    runs = np.split(ids[order], np.flatnonzero(~same) + 1)
    return sorted(tuple(int(id) for id in run) for run in runs if len(run) > 1)


def _column(tables: Iterable[np.ndarray], name: str) -> np.ndarray:
    columns = [table[name] for table in tables]
    return np.concatenate(columns) if columns else np.empty(0, ROW[name])
