"""Readers of place data sets, and generators of places that exist nowhere."""

from pathlib import Path

from vpr_dhe.datasets import colmap, folders, kapture, msls, standard
from vpr_dhe.datasets.base import Layout, PlaceDataset, Protocol
from vpr_dhe.errors import BadInputError, DatasetError
from vpr_dhe.records import StrPath
from vpr_dhe.runtime.choices import AUTO

__all__ = ["LAYOUTS", "Layout", "PlaceDataset", "Protocol", "read_places"]

# In the order in which a folder is looked at: a kapture or COLMAP folder may hold others that look like two folders.
LAYOUTS: dict[str, Layout] = {
    layout.name: layout for layout in (msls.LAYOUT, standard.LAYOUT, kapture.LAYOUT, colmap.LAYOUT, folders.LAYOUT)
}


def read_places(root: StrPath, layout: str = AUTO, protocol: Protocol | None = None) -> PlaceDataset:
    """Read a data set in one of the registered layouts, or in the one that its folders show; nothing is written.

    Raises:
        BadInputError: if the layout is unknown, or does not know what the protocol chooses.
        DatasetError: if the folder is not laid out as it should be, or no query has a right answer.
    """
    root = Path(root)
    protocol = protocol or Protocol()
    chosen = _layout(root, layout, protocol)
    chosen.require_taken(protocol)
    return chosen.read(root, protocol)


def _layout(root: Path, name: str, protocol: Protocol) -> Layout:
    if name != AUTO and name not in LAYOUTS:
        raise BadInputError(f"unknown layout {name!r}; available: {', '.join([AUTO, *LAYOUTS])}")
    if not root.is_dir():
        raise DatasetError(f"data set folder {root} {'is a file' if root.exists() else 'does not exist'}")
    if name != AUTO:
        return LAYOUTS[name]
    recognised = [layout for layout in LAYOUTS.values() if layout.recognises(root)]
    # Folders of other names cannot be recognised, but who names both of them says what they are.
    if not recognised and protocol.database and protocol.queries:
        return folders.LAYOUT
    if not recognised:
        known = "; ".join(f"{layout.name}: {layout.expected}" for layout in LAYOUTS.values())
        raise DatasetError(f"{root} has none of the known layouts ({known})")
    return recognised[0]
