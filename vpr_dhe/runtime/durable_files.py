"""Files that are there as a whole or not at all, and stay, whenever the machine stops."""

import os
from pathlib import Path

# What is written gets its final name only when all of it is durable.
TEMPORARY_SUFFIX = ".writing"


def write_durably(folder: Path, name: str, content: bytes) -> Path:
    """Write a file, in the place of one of that name, and return its path."""
    temporary = folder / f"{name}{TEMPORARY_SUFFIX}"
    with temporary.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    path = temporary.replace(folder / name)
    sync_folder(folder)
    return path


def sync_folder(folder: Path) -> None:
    """Make names in a folder durable."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
