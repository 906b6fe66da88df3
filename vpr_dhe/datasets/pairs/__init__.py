"""Readers of image pairs with known homographies, and their registry; a layout is one new file and one line here."""

from pathlib import Path

from vpr_dhe.datasets.pairs import aligned, hpatches, table, warped
from vpr_dhe.datasets.pairs.base import PairLayout, PairSet
from vpr_dhe.errors import BadInputError, DatasetError
from vpr_dhe.records import StrPath
from vpr_dhe.runtime.choices import AUTO

PAIR_LAYOUTS: dict[str, PairLayout] = {
    layout.name: layout for layout in (table.LAYOUT, hpatches.LAYOUT, aligned.LAYOUT, warped.LAYOUT)
}


def read_pairs(root: StrPath, layout: str = AUTO) -> PairSet:
    """Read a pair set in a given or recognised layout.

    Raises:
        BadInputError: if the layout is unknown.
        DatasetError: if the folder does not exist, or does not have the layout.
    """
    root = Path(root)
    if layout not in {AUTO, *PAIR_LAYOUTS}:
        raise BadInputError(f"unknown layout {layout!r}; available: {', '.join([AUTO, *PAIR_LAYOUTS])}")
    if not root.is_dir():
        found = "is a file" if root.exists() else "does not exist"
        raise DatasetError(f"{root} {found}; expected a folder of image pairs")
    chosen = recognise_pairs(root) if layout == AUTO else layout
    if chosen is None:
        expected = "; ".join(f"{name}: {known.expected}" for name, known in PAIR_LAYOUTS.items())
        raise DatasetError(f"{root} matches none of the layouts of image pairs; name one of them: {expected}")
    return PAIR_LAYOUTS[chosen].read(root)


def recognise_pairs(root: Path) -> str | None:
    """Name of the layout of a folder; None if it has none, or does not exist.

    Warps are never recognised, because any folder of images can be warped.
    """
    if not root.is_dir():
        return None
    return next((name for name, layout in PAIR_LAYOUTS.items() if layout.recognises(root)), None)
