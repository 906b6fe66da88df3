"""Data sets of a folder: those in a layout of the package, and the held-out scenes of `splits.toml`."""

import argparse
import sys
from collections.abc import Callable, Iterator, Mapping
from itertools import chain
from pathlib import Path

from splits import read_splits

from vpr_dhe.datasets import LAYOUTS, PlaceDataset, Protocol, read_places
from vpr_dhe.errors import VprDheError

Protocols = list[PlaceDataset]
"""One set of images, with the positives by each protocol."""


def find(root: Path, recognises: Callable[[Path], bool], depth: int = 2) -> Iterator[Path]:
    """Find recognised folders, the folder itself or below it; folders within a recognised one belong to it."""
    if recognises(root):
        yield root
    elif depth:
        for folder in sorted(path for path in root.iterdir() if path.is_dir()):
            yield from find(folder, recognises, depth - 1)


def find_places(root: Path, tolerances: Mapping[str, int]) -> Iterator[Protocols]:
    """Read place data sets, each by its own protocol and, if headings are known, also by the strict one.

    `tolerances` holds the frame tolerance of data sets without positions, by the name of the folder.
    """
    for folder in find(root, lambda path: any(layout.recognises(path) for layout in LAYOUTS.values())):
        try:
            found = [read_places(folder, protocol=Protocol(frame_tolerance=tolerances.get(folder.name)))]
        except VprDheError as error:
            print(f"left out {folder}: {error}", file=sys.stderr)
            continue
        if all(record.heading_deg is not None for record in found[0].queries.records):
            try:
                found.append(read_places(folder, protocol=Protocol(heading_tolerance_deg=0.0)))
            except VprDheError as error:
                print(f"{folder} without the strict protocol: {error}", file=sys.stderr)
        yield found


def all_data_sets(
    folder: Path, tolerances: Mapping[str, int], towns: Path, *, only: str = "", queries: int | None = None
) -> Iterator[Protocols]:
    """Place data sets of a folder, then held-out scenes and towns, which are rendered into `towns`.

    Args:
        folder: of the data sets and of the images that `splits.toml` names; without these there are no held-out scenes.
        tolerances: see `find_places`.
        towns: folder of rendered towns.
        only: part of the name of the data sets to keep.
        queries: maximum number of queries per data set, evenly spread.
    """
    scenes = read_splits(folder, held_out=True, towns=towns) if has_scenes(folder) else ()
    for protocols in chain(find_places(folder, tolerances), ([dataset] for dataset in scenes)):
        if only in protocols[0].name:
            yield [one.limited(queries) if queries else one for one in protocols]


def has_scenes(folder: Path) -> bool:
    """Whether the folder holds images for training, whose held-out scenes `splits.toml` names."""
    return (folder / "train_open").is_dir()


def add_tolerances(parser: argparse.ArgumentParser) -> None:
    """Add the option `--frame-tolerance`, a list of `tolerance`."""
    parser.add_argument(
        "--frame-tolerance",
        nargs="*",
        type=tolerance,
        default=[],
        metavar="NAME=FRAMES",
        help="frame tolerance of a data set without positions",
    )


def tolerance(text: str) -> tuple[str, int]:
    """Read `NAME=FRAMES`."""
    name, _, frames = text.partition("=")
    return name, int(frames)
