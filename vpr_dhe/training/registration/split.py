"""Split of a folder into training and validation data."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

from vpr_dhe.errors import DatasetError
from vpr_dhe.training.sources.base import hold_out

PARTS = ("train", "val")
"""Names of the subfolders for training and validation."""

Item = TypeVar("Item")


def train_and_val(
    root: Path, read: Callable[[Path], Sequence[Item]], item: str
) -> tuple[Sequence[Item], Sequence[Item]]:
    """Read the subfolders `train` and `val` of a folder or, without these, hold out every tenth item of the folder.

    Other contents of a folder with these subfolders, such as test data, are ignored. `item` is the word for one item in
    errors.

    Raises:
        DatasetError: if a folder without subfolders contains only one item, or as `read` does.
    """
    parts = [root / name for name in PARTS]
    if all(part.is_dir() for part in parts):
        train, val = map(read, parts)
        return train, val
    items = read(root)
    if len(items) < 2:
        raise DatasetError(
            f"{root} contains one {item}; at least two are needed, one for training and one for validation"
        )
    return hold_out(items)
