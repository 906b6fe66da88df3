"""Sorted file of ids that were removed but are still in a segment, rewritten with each change."""

from dataclasses import replace
from pathlib import Path

import numpy as np
from jaxtyping import Int64

from vpr_dhe.index.files import read_checked, unique_name, write_sealed
from vpr_dhe.index.manifest import Manifest


def read_removed(folder: Path, manifest: Manifest) -> Int64[np.ndarray, " removed"]:
    """Read the removed ids of a manifest, ascending.

    Raises:
        IndexDamagedError: if they do not agree with their checksum.
    """
    if manifest.removed is None:
        return np.empty(0, np.int64)
    return np.frombuffer(read_checked(folder, manifest.removed), "<i8")


def with_removed(folder: Path, manifest: Manifest, removed: Int64[np.ndarray, " removed"]) -> Manifest:
    """Write the removed ids, ascending, and return a manifest with exactly these."""
    if not len(removed):
        return replace(manifest, removed=None)
    content = removed.astype("<i8").tobytes()
    return replace(manifest, removed=write_sealed(folder, f"{unique_name('removed')}.i64", content))
