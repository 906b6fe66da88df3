"""Faults of copies of HPatches: sequences of six images and five homographies."""

import re
from collections.abc import Iterator
from pathlib import Path

from findings import Finding, some
from user_copy import UserCopy

_SEQUENCE = re.compile(r"[iv]_\w+")
_FILES = (*(f"{number}.ppm" for number in range(1, 7)), *(f"H_1_{number}" for number in range(2, 7)))


def hpatches_faults(copy: UserCopy) -> Iterator[Finding]:
    """Yield the faults of HPatches; none for other data sets."""
    if copy.card.layout != "hpatches":
        return
    sequences = _sequences(copy.root)
    nested = next((path for path in sorted(copy.root.iterdir()) if path.is_dir() and _sequences(path)), None)
    expected = copy.card.split[0].sequences
    if not sequences and nested is not None:
        yield Finding(f"the sequences are in {nested}", "the folder that holds them", f"give {nested}")
    elif any((sequence / "ref.png").is_file() for sequence in sequences):
        remedy = "download hpatches-sequences-release instead of hpatches-release"
        yield Finding(f"{sequences[0].name} holds patches (ref.png)", "full images 1.ppm to 6.ppm", remedy)
    else:
        if len(sequences) != expected:
            remedy = "unpack hpatches-sequences-release again"
            yield Finding(f"{len(sequences)} sequences i_... and v_...", f"{expected}", remedy)
        missing = [sequence / name for sequence in sequences for name in _FILES if not _is_there(sequence / name)]
        if missing:
            found = some([copy.relative(path) for path in missing], "missing or empty")
            yield Finding(found, "1.ppm to 6.ppm and H_1_2 to H_1_6", "unpack hpatches-sequences-release again")


def _sequences(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.is_dir() and _SEQUENCE.fullmatch(path.name))


def _is_there(path: Path) -> bool:
    return path.is_file() and path.stat().st_size > 0
