"""Pixel-aligned image pairs in two folders `a` and `b`, such as those of a visible and a thermal camera."""

from functools import partial
from pathlib import Path, PurePosixPath

import numpy as np

from vpr_dhe.datasets.pairs.base import HomographyPair, PairLayout, PairSet
from vpr_dhe.datasets.pairs.pictures import list_pictures, size_of
from vpr_dhe.errors import DatasetError
from vpr_dhe.images.decoding import decode_named

SIDES = ("a", "b")


def read_aligned(root: Path) -> PairSet:
    """Pair the images of `a` and `b` by name without extension; homographies are the identity.

    Raises:
        DatasetError: if an image has no counterpart, or their sizes differ.
    """
    pairs = tuple(_pair(name, *images) for name, images in counterparts(root).items())
    return PairSet(root.resolve().name, "pixel-aligned images, the identity is right", pairs)


def counterparts(root: Path) -> dict[str, tuple[Path, Path]]:
    """Match the images of both folders by name without extension.

    Raises:
        DatasetError: if an image has no counterpart, or two.
    """
    folder_a, folder_b = (root / side for side in SIDES)
    images_a, images_b = _by_stem(folder_a), _by_stem(folder_b)
    _require_counterparts(images_a, images_b, folder_b)
    _require_counterparts(images_b, images_a, folder_a)
    return {stem: (path, images_b[stem]) for stem, path in images_a.items()}


def _by_stem(folder: Path) -> dict[str, Path]:
    found: dict[str, Path] = {}
    for name in list_pictures(folder):
        path, stem = folder / name, PurePosixPath(name).with_suffix("").as_posix()
        if stem in found:
            raise DatasetError(f"{found[stem]} and {path} differ only in their extension; keep one of them")
        found[stem] = path
    return found


def _require_counterparts(images: dict[str, Path], others: dict[str, Path], other_folder: Path) -> None:
    for stem, path in images.items():
        if stem not in others:
            raise DatasetError(f"{path} has no image of the same name in {other_folder}; add it or remove this one")


def _pair(name: str, path_a: Path, path_b: Path) -> HomographyPair:
    size_a, size_b = size_of(path_a), size_of(path_b)
    if size_a != size_b:
        raise DatasetError(
            f"{path_a} has {size_a.width} x {size_a.height} pixels and {path_b} {size_b.width} x {size_b.height}; "
            "aligned images have the same size"
        )
    return HomographyPair(name, "", partial(decode_named, path_a), partial(decode_named, path_b), np.eye(3))


LAYOUT = PairLayout(
    "aligned",
    "folders a and b of pixel-aligned images with the same names",
    lambda root: all((root / side).is_dir() for side in SIDES),
    read_aligned,
)
