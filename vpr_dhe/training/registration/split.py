"""Split of a folder into training and validation data."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

from vpr_dhe.errors import DatasetError
from vpr_dhe.training.sources.base import hold_out

PARTS = ("train", "val")
"""Subfolders for training and validation."""

Item = TypeVar("Item")


def learned_and_kept(
    root: Path, read: Callable[[Path], Sequence[Item]], item: str
) -> tuple[Sequence[Item], Sequence[Item]]:
    """Read the parts `train` and `val` of a folder, or hold out every tenth item of one without parts.

    Other contents of a folder with parts are ignored, so test data may lie beside them. `item` names one item in
    errors.

    Raises:
        DatasetError: if a folder without parts holds only one item, or as `read` does.
    """
    parts = [root / name for name in PARTS]
    if all(part.is_dir() for part in parts):
        learned, kept = map(read, parts)
        return learned, kept
    items = read(root)
    if len(items) < 2:
        raise DatasetError(
            f"{root} holds one {item}; at least two are needed, one to learn from and one to validate with"
        )
    return hold_out(items)
