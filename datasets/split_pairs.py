"""Split a set of image pairs by name, to learn on one part, choose on another and be tested on a third.

    python datasets/split_pairs.py DATA --out FOLDER

writes `train`, `val` and `test`, each laid out as DATA is (folders `a` and `b`, or `pairs.csv`), with links to the
images. Where a pair goes follows from its name alone (the first eight digits of its SHA-256, modulo 10: 0 and 1 are
tested on, 2 is for validation), so a pair more or less moves no other.
"""

import argparse
import csv
import hashlib
import sys
from pathlib import Path, PurePosixPath

from vpr_dhe.errors import DatasetError, VprDheError
from vpr_dhe.images import list_images
from vpr_dhe.places.pairs import recognise_pairs
from vpr_dhe.places.pairs.table import FILE_NAME

PARTS = ("train", "val", "test")
_SIDES = ("a", "b")


def part_of(name: str) -> str:
    """The part that a pair belongs to by its name."""
    place = int(hashlib.sha256(name.encode()).hexdigest()[:8], 16) % 10
    return {0: "test", 1: "test", 2: "val"}.get(place, "train")


def split_pairs(root: Path, out: Path) -> dict[str, int]:
    """Link all images, and count the pairs of each part.

    Raises:
        DatasetError: if `out` exists, or `root` is laid out in no way that can be split.
    """
    if out.exists():
        raise DatasetError(f"{out} exists already; name a new folder")
    layout = recognise_pairs(root)
    if layout not in {"aligned", "pairs"}:
        raise DatasetError(f"{root} holds neither folders a and b nor {FILE_NAME}; only such pairs can be split")
    return _split_folders(root, out) if layout == "aligned" else _split_table(root, out)


def _split_folders(root: Path, out: Path) -> dict[str, int]:
    counts = dict.fromkeys(PARTS, 0)
    for side in _SIDES:
        for name in list_images(root / side):
            part = part_of(PurePosixPath(name).with_suffix("").as_posix())
            _link(root / side / name, out / part / side / name)
            counts[part] += side == "a"
    return counts


def _split_table(root: Path, out: Path) -> dict[str, int]:
    with (root / FILE_NAME).open(newline="", encoding="utf-8-sig") as file:
        reader = csv.DictReader(file, skipinitialspace=True)
        rows, header = list(reader), list(reader.fieldnames or [])
    counts = dict.fromkeys(PARTS, 0)
    for part in PARTS:
        chosen = [row for row in rows if part_of(row.get("name") or f"{row['image_a']} {row['image_b']}") == part]
        counts[part] = len(chosen)
        for row in chosen:
            for image in (row["image_a"], row["image_b"]):
                _link(root / image, out / part / image)
        (out / part).mkdir(parents=True, exist_ok=True)
        with (out / part / FILE_NAME).open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, header, lineterminator="\n")
            writer.writeheader()
            writer.writerows(chosen)
    return counts


def _link(image: Path, link: Path) -> None:
    link.parent.mkdir(parents=True, exist_ok=True)
    if not link.is_symlink():
        link.symlink_to(image.resolve())


def main() -> int:
    """Split, and say how many pairs are where."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("data", type=Path, help="folders a and b of aligned images, or pairs.csv beside the images")
    parser.add_argument("--out", type=Path, required=True, help="a new folder")
    arguments = parser.parse_args()
    try:
        counts = split_pairs(arguments.data, arguments.out)
    except VprDheError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    for part, count in counts.items():
        print(f"{part}: {count} pairs")
    return 0


if __name__ == "__main__":
    sys.exit(main())
