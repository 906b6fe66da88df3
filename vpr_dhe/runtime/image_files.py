"""Listing of image files in folders, by extension."""

import os
from collections.abc import Iterator
from pathlib import Path

EXTENSIONS = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".ppm", ".pgm", ".jp2"})


def image_files_below(folder: Path) -> Iterator[Path]:
    """Iterate over files with an image's extension in a folder and below, without hidden files and folders."""
    return (path for path in files_below(folder) if not path.name.startswith(".") and path.suffix.lower() in EXTENSIONS)


def files_below(folder: Path) -> Iterator[Path]:
    """Iterate over files in a folder and below, without hidden folders; follows links, but enters each folder once."""
    entered: set[tuple[int, int]] = set()
    for parent, folders, files in os.walk(folder, followlinks=True):
        status = Path(parent).stat()
        # Links may form a cycle.
        if (status.st_dev, status.st_ino) in entered:
            folders.clear()
            continue
        entered.add((status.st_dev, status.st_ino))
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in files:
            yield Path(parent, name)
