"""Immutable files: written durably, and checked by size and checksum."""

import hashlib
import secrets
import weakref
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from vpr_dhe.errors import IndexDamagedError
from vpr_dhe.runtime.checksums import file_sha256
from vpr_dhe.runtime.durable_files import write_durably


@dataclass(frozen=True)
class FileInfo:
    """Name, size and SHA-256 of one sealed file."""

    name: str
    bytes: int
    sha256: str


def unique_name(stem: str) -> str:
    """Make a name that was never used, not even by an interrupted run."""
    return f"{stem}-{secrets.token_hex(4)}"


def write_sealed(folder: Path, name: str, content: bytes) -> FileInfo:
    """Write a file durably, and return its name, size and checksum."""
    write_durably(folder, name, content)
    return FileInfo(name, len(content), hashlib.sha256(content).hexdigest())


def file_info(path: Path) -> FileInfo:
    """Compute the size and checksum of a file."""
    return FileInfo(path.name, path.stat().st_size, file_sha256(path))


def read_checked(folder: Path, info: FileInfo) -> bytes:
    """Read a whole file.

    Raises:
        IndexDamagedError: if it is missing or does not agree with its checksum.
    """
    path = require_size(folder, info)
    content = path.read_bytes()
    if hashlib.sha256(content).hexdigest() != info.sha256:
        raise damage(path, "does not agree with its checksum")
    return content


def require_size(folder: Path, info: FileInfo) -> Path:
    """Check the size of a file, whose records are checked as they are read, and return its path.

    Raises:
        IndexDamagedError: if it is missing or has another size.
    """
    path = folder / info.name
    try:
        found = path.stat().st_size
    except OSError as error:
        raise damage(path, f"cannot be read ({error.strerror})") from error
    if found != info.bytes:
        raise damage(path, f"holds {found} bytes instead of {info.bytes}, and fails its checksum")
    return path


class PinnedFile:
    """Open file that stays readable after a compaction deletes its name.

    Raises:
        IndexDamagedError: if it is missing or has another size.
    """

    def __init__(self, folder: Path, info: FileInfo) -> None:
        self._info = info
        self._file = require_size(folder, info).open("rb")
        weakref.finalize(self, self._file.close)

    @property
    def path(self) -> Path:
        """Path by which this process can always open it."""
        return Path(f"/dev/fd/{self._file.fileno()}")

    def is_sound(self) -> bool:
        """Whether its content agrees with the checksum."""
        return file_sha256(self.path) == self._info.sha256


def is_sound(folder: Path, info: FileInfo) -> bool:
    """Whether a file agrees with its size and checksum."""
    path = folder / info.name
    try:
        return path.stat().st_size == info.bytes and file_sha256(path) == info.sha256
    except OSError:  # missing, or unreadable
        return False


def damage(path: Path, what: str) -> IndexDamagedError:
    """Make an error that says what is damaged and what to do."""
    return IndexDamagedError(
        f"{path} {what}; `vpr-dhe check INDEX --repair` drops what is damaged, then index the images again"
    )


def file_named(files: Iterable[FileInfo], name: str) -> FileInfo:
    """Look up a file by name; it must exist."""
    return next(file for file in files if file.name == name)
