"""Readers of place data sets, and generators of places that exist nowhere."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from vpr_dhe.errors import BadInputError, DatasetError
from vpr_dhe.places.base import PlaceDataset
from vpr_dhe.places.standard import read_folders, read_standard

AUTO = "auto"


@dataclass(frozen=True)
class Protocol:
    """What the caller may choose of a data set's protocol; each layout takes what applies to it."""

    split: str = "test"
    radius_m: float = 25.0
    frame_tolerance: int = 0


LAYOUTS: dict[str, Callable[[Path, Protocol], PlaceDataset]] = {
    "vpr": lambda root, protocol: read_standard(root, split=protocol.split, radius_m=protocol.radius_m),
    "folders": lambda root, protocol: read_folders(
        root, radius_m=protocol.radius_m, frame_tolerance=protocol.frame_tolerance
    ),
}


def read_places(root: Path, layout: str = AUTO, protocol: Protocol | None = None) -> PlaceDataset:
    """Read a data set in one of the registered layouts, or in the one that its folders show.

    Raises:
        BadInputError: if the layout is unknown.
        DatasetError: if the folder is not laid out as it should be.
    """
    chosen = _recognise(root) if layout == AUTO else layout
    if chosen not in LAYOUTS:
        raise BadInputError(f"unknown layout {layout!r}; available: {', '.join([AUTO, *LAYOUTS])}")
    return LAYOUTS[chosen](root, protocol or Protocol())


def _recognise(root: Path) -> str:
    if not root.is_dir():
        raise DatasetError(f"data set folder {root} does not exist")
    if (root / "images").is_dir():
        return "vpr"
    if (root / "database").is_dir() and (root / "queries").is_dir():
        return "folders"
    raise DatasetError(
        f"{root} has none of the known layouts; expected images/SPLIT/{{database,queries}} or two folders"
    )
