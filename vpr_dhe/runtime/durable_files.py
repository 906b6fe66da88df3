"""Files that are written atomically and survive a crash of the machine."""

import os
from pathlib import Path

# Files get their final name only when they are durable.
TEMPORARY_SUFFIX = ".writing"


def write_durably(folder: Path, name: str, content: bytes) -> Path:
    """Write or replace a file atomically and durably, and return its path; a failure leaves no part of it behind."""
    temporary = folder / f"{name}{TEMPORARY_SUFFIX}"
    try:
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        path = temporary.replace(folder / name)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    sync_folder(folder)
    return path


def seal_folder(temporary: Path, final: Path) -> None:
    """Give a folder of durable files its final name beside it, durably."""
    sync_folder(temporary)
    temporary.rename(final)
    sync_folder(final.parent)


def sync_folder(folder: Path) -> None:
    """Make the names in a folder durable."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
