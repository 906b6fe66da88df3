"""Readers of place recognition data sets, and their registry: a new layout is one new file and one line here."""

from pathlib import Path

from vpr_dhe.datasets import colmap, folders, kapture, msls, standard
from vpr_dhe.datasets.base import Layout, PlaceDataset, Protocol
from vpr_dhe.errors import BadInputError, DatasetError
from vpr_dhe.records import StrPath
from vpr_dhe.runtime.choices import AUTO

__all__ = ["LAYOUTS", "Layout", "PlaceDataset", "Protocol", "read_places"]

# In the order of recognition: a kapture or COLMAP folder may also look like two folders.
LAYOUTS: dict[str, Layout] = {
    layout.name: layout for layout in (msls.LAYOUT, standard.LAYOUT, kapture.LAYOUT, colmap.LAYOUT, folders.LAYOUT)
}


def read_places(root: StrPath, layout: str = AUTO, protocol: Protocol | None = None) -> PlaceDataset:
    """Read a data set in a given or recognised layout; nothing is written.

    Raises:
        BadInputError: if the layout is unknown, or does not support an option of the protocol.
        DatasetError: if the folder does not have the layout, or no query has a positive.
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
    # Folders of other names cannot be recognised, unless the caller names both.
    if not recognised and protocol.database and protocol.queries:
        return folders.LAYOUT
    if not recognised:
        known = "; ".join(f"{layout.name}: {layout.expected}" for layout in LAYOUTS.values())
        raise DatasetError(f"{root} has none of the known layouts ({known})")
    return recognised[0]
