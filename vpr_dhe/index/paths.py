"""Place of an index on disk, importable without torch."""

import os
from pathlib import Path

from vpr_dhe.errors import IndexFormatError

FILE_NAME = "manifest.json"


def is_folder(path: str | Path) -> bool:
    """Whether a folder is there; `Path.is_dir` raises the errors of a drive that does not answer."""
    return os.path.isdir(path)  # noqa: PTH112


def moved_hint(index: Path) -> str:
    """Advice for an index whose photos are no longer where they were."""
    return f"if they were moved to NEW, run `vpr-dhe index NEW --out {index} --moved`"


def require_manifest(folder: Path) -> Path:
    """Return the path of an index's manifest.

    Raises:
        IndexFormatError: if there is none.
    """
    path = folder / FILE_NAME
    if not path.is_file():
        found = "holds no manifest.json" if folder.is_dir() else "does not exist"
        raise IndexFormatError(f"{folder} {found}; expected an index made by `vpr-dhe index IMAGES --out {folder}`")
    return path
