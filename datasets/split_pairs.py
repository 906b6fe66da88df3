"""Split a set of image pairs by name into training, validation and test parts.

    python datasets/split_pairs.py DATA --out FOLDER

writes `train`, `val` and `test`, each in the layout of DATA (folders `a` and `b`, or `pairs.csv`), with links to the
images. The part of a pair depends only on its name (the first eight digits of its SHA-256, modulo 10: 0 and 1 are test,
2 is validation), so adding or removing pairs does not move others. With `--leave-out-plain`, pairs with an image of one
colour, such as maps of the open sea, are dropped, because they cannot be aligned.
"""

import argparse
import csv
import hashlib
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TypeAlias

import numpy as np

from vpr_dhe.datasets.pairs import recognise_pairs
from vpr_dhe.datasets.pairs.aligned import counterparts
from vpr_dhe.datasets.pairs.table import FILE_NAME
from vpr_dhe.errors import DatasetError, VprDheError
from vpr_dhe.images.decoding import decode_named

PARTS = ("train", "val", "test")
LEFT_OUT = "left out"
_PLAIN = 0.95

Kept: TypeAlias = Callable[[Path, Path], bool]
"""Predicate for the pairs to keep."""


def part_of(name: str) -> str:
    """Part of a pair, by its name."""
    place = int(hashlib.sha256(name.encode()).hexdigest()[:8], 16) % 10
    return {0: "test", 1: "test", 2: "val"}.get(place, "train")


def all_kept(*_: Path) -> bool:
    """Keep every pair."""
    return True


def shows_something(*images: Path) -> bool:
    """Whether no image has the same colour in more than 95 % of its pixels.

    Raises:
        ImageError: if an image cannot be read.
    """
    return all(_commonest_colour(path) <= _PLAIN for path in images)


def _commonest_colour(path: Path) -> float:
    """Share of the pixels with the most common colour."""
    pixels = decode_named(path).reshape(-1, 3).astype(np.uint32)
    counts = np.unique(pixels @ np.array([1, 2**8, 2**16], np.uint32), return_counts=True)[1]
    return counts.max() / len(pixels)


def split_pairs(root: Path, out: Path, kept: Kept = all_kept) -> dict[str, int]:
    """Link the images of the pairs accepted by `kept`, and count the pairs of each part and the dropped ones.

    Raises:
        DatasetError: if `out` exists, or `root` has an unsupported layout.
        ImageError: if `kept` cannot read an image.
    """
    if out.exists():
        raise DatasetError(f"{out} exists already; name a new folder")
    layout = recognise_pairs(root)
    if layout not in {"aligned", "pairs"}:
        raise DatasetError(f"{root} holds neither folders a and b nor {FILE_NAME}; only such pairs can be split")
    return _split_folders(root, out, kept) if layout == "aligned" else _split_table(root, out, kept)


def _split_folders(root: Path, out: Path, kept: Kept) -> dict[str, int]:
    pairs = counterparts(root)
    # All pairs are checked before the first link, because a partial result would look complete.
    chosen = {name: images for name, images in pairs.items() if kept(*images)}
    counts = dict.fromkeys(PARTS, 0) | {LEFT_OUT: len(pairs) - len(chosen)}
    for name, images in chosen.items():
        part = part_of(name)
        for image in images:
            _link(image, out / part / image.relative_to(root))
        counts[part] += 1
    return counts


def _split_table(root: Path, out: Path, kept: Kept) -> dict[str, int]:
    with (root / FILE_NAME).open(newline="", encoding="utf-8-sig") as file:
        reader = csv.DictReader(file, skipinitialspace=True)
        rows, header = list(reader), list(reader.fieldnames or [])
    everything, rows = rows, [row for row in rows if kept(root / row["image_a"], root / row["image_b"])]
    counts = dict.fromkeys(PARTS, 0) | {LEFT_OUT: len(everything) - len(rows)}
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
    """Split, and print the number of pairs by part."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("data", type=Path, help="folders a and b of aligned images, or pairs.csv next to the images")
    parser.add_argument("--out", type=Path, required=True, help="a new folder")
    parser.add_argument("--leave-out-plain", action="store_true", help="leave out pairs with an image of one colour")
    arguments = parser.parse_args()
    try:
        counts = split_pairs(arguments.data, arguments.out, shows_something if arguments.leave_out_plain else all_kept)
    except VprDheError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    for part, count in counts.items():
        if count or part != LEFT_OUT:
            print(f"{part}: {count} pairs")
    return 0


if __name__ == "__main__":
    sys.exit(main())
