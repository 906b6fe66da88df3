"""Cache of what verifiers extract from the images of an index, in a folder of the index that can be deleted any time.

One file per image and kind, `verifier-cache/KIND/CONTENT`, named by the content of the image file. The manifest does
not name it, so the index is the same with it and without it. Files get their names when they are complete, and begin
with a checksum; those that fail it are deleted. After a file could not be written, the next thousand are not cached.
"""

import errno
import logging
import os
import secrets
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import xxhash

from vpr_dhe.errors import BadInputError
from vpr_dhe.index.rows import Digest, FileStamp
from vpr_dhe.runtime.durable_files import TEMPORARY_SUFFIX

FOLDER = "verifier-cache"
LIMIT_VARIABLE = "VPR_DHE_VERIFIER_CACHE_GB"
DEFAULT_LIMIT_GB = 1.0
# What is left after making room, so that not every file needs it.
_KEPT_SHARE = 0.9
# Files written between two looks at what other processes write.
_SURVEY_INTERVAL = 256
_CHECK_BYTES = 8
# Files that are not written after one could not be, before the next attempt: a full disk may have room again.
_PAUSE = 1000

_log = logging.getLogger(__name__)


class VerifierCache:
    """Cache of an index of at most `max_bytes`; None takes that of VPR_DHE_VERIFIER_CACHE_GB, or 1 GB.

    The files that were used longest ago make room for new ones. Safe for several processes and threads.
    """

    def __init__(self, index: Path, max_bytes: int | None = None) -> None:
        self.folder = index / FOLDER
        self._max_bytes = max_bytes
        self._bytes = self._written = 0
        self._pause = 0

    def read(self, kind: str, content: Digest) -> bytes | None:
        """Read what is cached of an image; None if there is nothing, or it is damaged."""
        path = self._path(kind, content)
        try:
            stored = path.read_bytes()
            if stored[:_CHECK_BYTES] != _check(stored[_CHECK_BYTES:]):
                _log.info("%s is damaged, and deleted", path)
                path.unlink(missing_ok=True)
                return None
            with suppress(OSError):  # of another user, or on a read-only disk
                os.utime(path)
        except OSError:
            return None
        return stored[_CHECK_BYTES:]

    def write(self, kind: str, content: Digest, value: bytes) -> None:
        """Cache something of an image, unless that is impossible.

        Raises:
            BadInputError: if VPR_DHE_VERIFIER_CACHE_GB is not a number of gigabytes.
        """
        stored = _check(value) + value
        if len(stored) > self._limit():
            return
        if self._pause > 0:
            self._pause -= 1
            return
        path = self._path(kind, content)
        temporary = path.with_name(f"{path.name}.{secrets.token_hex(4)}{TEMPORARY_SUFFIX}")
        try:
            self._make_room(len(stored))
            self.folder.mkdir(exist_ok=True)  # not those above it: the index may be gone
            path.parent.mkdir(exist_ok=True)
            temporary.write_bytes(stored)
            temporary.replace(path)
        except OSError as error:
            # Another process may have deleted the folder, which is no reason to stop.
            self._pause = 0 if error.errno == errno.ENOENT else _PAUSE
            _log.info("cannot write to %s (%s)", self.folder, error)
        finally:
            with suppress(OSError):
                temporary.unlink(missing_ok=True)

    def drop(self, contents: Iterable[Digest]) -> None:
        """Delete all that is cached of some images."""
        names = {_name(content) for content in contents}
        for kind in self._kinds():
            for name in names:
                with suppress(OSError):
                    (kind / name).unlink(missing_ok=True)

    def retain(self, contents: Iterable[Digest]) -> None:
        """Delete all that is cached of other images."""
        if self.is_present:
            names = {_name(content) for content in contents}
            _delete(file for file in self._files() if file.path.name not in names)

    @property
    def is_present(self) -> bool:
        """Whether anything may be cached."""
        return self.folder.is_dir()

    def _path(self, kind: str, content: Digest) -> Path:
        return self.folder / kind / _name(content)

    def _limit(self) -> int:
        if self._max_bytes is None:
            self._max_bytes = _limit_of_environment()
        return self._max_bytes

    def _make_room(self, size: int) -> None:
        if self._written % _SURVEY_INTERVAL == 0:
            self._bytes = sum(file.bytes for file in self._files())
        self._written += 1
        self._bytes += size
        if self._bytes <= self._limit():
            return
        files = sorted(self._files(), key=lambda file: file.used_ns, reverse=True)  # the last used first
        room, kept = _KEPT_SHARE * self._limit() - size, 0
        number = 0
        while number < len(files) and kept + files[number].bytes <= room:
            kept += files[number].bytes
            number += 1
        _delete(files[number:])
        self._bytes = kept + size

    def _kinds(self) -> list[Path]:
        try:
            return [path for path in self.folder.iterdir() if path.is_dir()]
        except OSError:
            return []

    def _files(self) -> "list[_File]":
        found: list[_File] = []
        for kind in self._kinds():
            with suppress(OSError), os.scandir(kind) as entries:
                for entry in entries:
                    with suppress(OSError):  # deleted meanwhile
                        status = entry.stat()
                        found.append(_File(Path(entry.path), status.st_size, status.st_mtime_ns))
        return found


@dataclass(frozen=True)
class CachedImage:
    """Cache of one image: its stamp when it was indexed, and its file."""

    cache: VerifierCache
    stamp: FileStamp
    path: Path

    def read(self, kind: str) -> bytes | None:
        """Read what was cached; None if there is nothing."""
        return self.cache.read(kind, self.stamp.content)

    def write(self, kind: str, content: bytes) -> None:
        """Cache what was extracted from the file, unless that has changed since it was indexed.

        Raises:
            BadInputError: as for `VerifierCache.write`.
        """
        if self.stamp.matches(self.path):
            self.cache.write(kind, self.stamp.content, content)


@dataclass(frozen=True)
class _File:
    path: Path
    bytes: int
    used_ns: int


def _delete(files: Iterable[_File]) -> None:
    for file in files:
        with suppress(OSError):
            file.path.unlink(missing_ok=True)


def _name(content: Digest) -> str:
    return f"{content.high:016x}{content.low:016x}"


def _check(content: bytes) -> bytes:
    return xxhash.xxh3_64_digest(content)


def _limit_of_environment() -> int:
    given = os.environ.get(LIMIT_VARIABLE, "")
    try:
        gigabytes = float(given or DEFAULT_LIMIT_GB)
        if not 0 <= gigabytes < float("inf"):
            raise ValueError(given)
    except ValueError:
        raise BadInputError(
            f"{LIMIT_VARIABLE} is {given!r}; expected a number of gigabytes, or 0 to cache nothing"
        ) from None
    return int(1e9 * gigabytes)
