"""Files that never change once written: durable by fsync and rename, known by size and checksum."""

import hashlib
import secrets
import weakref
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from vpr_dhe.errors import IndexDamagedError
from vpr_dhe.runtime.durable_files import write_durably

_READ_BYTES = 1 << 20


@dataclass(frozen=True)
class FileInfo:
    """Name, size and SHA-256 of one sealed file."""

    name: str
    bytes: int
    sha256: str


def unique_name(stem: str) -> str:
    """A name that was never used: what an interrupted run left behind may not be touched, nor taken for ours."""
    return f"{stem}-{secrets.token_hex(4)}"


def write_sealed(folder: Path, name: str, content: bytes) -> FileInfo:
    """Write a file durably, and say what it is."""
    write_durably(folder, name, content)
    return FileInfo(name, len(content), hashlib.sha256(content).hexdigest())


def file_info(path: Path) -> FileInfo:
    """Measure a file that was just written."""
    return FileInfo(path.name, path.stat().st_size, _sha256(path))


def read_checked(folder: Path, fact: FileInfo) -> bytes:
    """Read a whole file.

    Raises:
        IndexDamagedError: if it is missing or does not agree with its checksum.
    """
    path = require_size(folder, fact)
    content = path.read_bytes()
    if hashlib.sha256(content).hexdigest() != fact.sha256:
        raise damage(path, "does not agree with its checksum")
    return content


def require_size(folder: Path, fact: FileInfo) -> Path:
    """The path of a file; what is checked record by record as it is read shows at least a loss of length at once.

    Raises:
        IndexDamagedError: if it is missing or not of its size.
    """
    path = folder / fact.name
    try:
        found = path.stat().st_size
    except OSError as error:
        raise damage(path, f"cannot be read ({error.strerror})") from error
    if found != fact.bytes:
        raise damage(path, f"holds {found} bytes instead of {fact.bytes}, and fails its checksum")
    return path


class PinnedFile:
    """A file that stays readable when a compaction deletes its name.

    Raises:
        IndexDamagedError: if it is missing or not of its size.
    """

    def __init__(self, folder: Path, fact: FileInfo) -> None:
        self._fact = fact
        self._file = require_size(folder, fact).open("rb")
        weakref.finalize(self, self._file.close)

    @property
    def path(self) -> Path:
        """A name under which this process can always open it."""
        return Path(f"/dev/fd/{self._file.fileno()}")

    def is_sound(self) -> bool:
        """Whether its content is what was written."""
        return _sha256(self.path) == self._fact.sha256


def is_sound(folder: Path, fact: FileInfo) -> bool:
    """Whether a file is what was written."""
    path = folder / fact.name
    try:
        return path.stat().st_size == fact.bytes and _sha256(path) == fact.sha256
    except OSError:  # missing, or a disk that no longer gives it back
        return False


def damage(path: Path, what: str) -> IndexDamagedError:
    """An error that says what is damaged and what to do."""
    return IndexDamagedError(
        f"{path} {what}; `vpr-dhe check INDEX --repair` drops what is damaged, then index the images again"
    )


def file_named(facts: Iterable[FileInfo], name: str) -> FileInfo:
    """The file of this name; that there is one is the writer's promise."""
    return next(fact for fact in facts if fact.name == name)


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(_READ_BYTES):
            digest.update(block)
    return digest.hexdigest()
