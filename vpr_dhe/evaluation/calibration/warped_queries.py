"""Queries for a calibration without a data set: indexed images, warped and relit."""

from collections import defaultdict
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np

from vpr_dhe.datasets.augmentation import warped_views
from vpr_dhe.datasets.base import PlaceSplit, positives_within
from vpr_dhe.errors import BadInputError
from vpr_dhe.evaluation.calibration.labelled_queries import LabelledQuery
from vpr_dhe.images.view_names import split_view
from vpr_dhe.index.paths import moved_hint
from vpr_dhe.index.place_index import PlaceIndex
from vpr_dhe.index.snapshot import Snapshot
from vpr_dhe.records import Image, ImageRecord, Size
from vpr_dhe.runtime.sampling import evenly_spread

SEED = 0


def warped_queries(index: PlaceIndex, count: int, radius_m: float) -> list[LabelledQuery]:
    """Make warped views of at most `count` indexed images, evenly spread, in place of other photos of their places.

    Images at most `radius_m` away show the place of a view. The image itself, of a panorama all views, is withheld
    unless there is no other: a view matches its own image with far more inliers than another photo would. With half the
    blocks of a town left out of the index, right matches by `magsac` had a median of 67 inliers for real queries, 177
    for such views, and 47 with the image withheld; the expected calibration error on real queries was then 0.24 and
    0.05. Calibrate on real queries where there are any.

    Raises:
        BadInputError: if an image has no position, or the images folder is missing.
    """
    folders = index.manifest.folders
    if folders.missing:
        raise BadInputError(
            f"the indexed images are no longer in {folders.missing[0]}, and calibration without labelled queries needs "
            f"them; {moved_hint(index.folder)}, or give labelled queries with --data"
        )
    records = [index.image(int(id)) for id in index.ids]
    _require_positions(records, index)
    rows = evenly_spread(len(records), count)
    chosen = tuple(records[row] for row in rows)
    folder = Path(folders.main)
    near = positives_within(PlaceSplit(folder, tuple(records)), PlaceSplit(folder, chosen), radius_m)
    ids, photos = index.ids, _photos(records)
    return [
        LabelledQuery(
            record.path,
            partial(_view, index.snapshot, int(ids[row]), index.spec.input_size, number),
            *_shown_and_withheld(frozenset(ids[found].tolist()), frozenset(ids[photos[row]].tolist())),
        )
        for number, (record, row, found) in enumerate(zip(chosen, rows.tolist(), near, strict=True))
    ]


def _photos(records: Sequence[ImageRecord]) -> list[list[int]]:
    """Rows of the images that are of the same photo as each image: the views of a panorama, or itself."""
    by_file, files = defaultdict[str, list[int]](list), list[str]()
    for row, record in enumerate(records):
        view = split_view(record.path)
        files.append(record.path if view is None else view[0])
        by_file[files[-1]].append(row)
    return [by_file[file] for file in files]


def _shown_and_withheld(near: frozenset[int], own: frozenset[int]) -> tuple[frozenset[int], frozenset[int]]:
    """Ids of the images that show the place of a view, and of those that must not be candidates."""
    others = near - own
    return (others, near & own) if others else (near, frozenset())


def _require_positions(records: Sequence[ImageRecord], index: PlaceIndex) -> None:
    unplaced = [record.path for record in records if record.position is None]
    if unplaced:
        raise BadInputError(
            f"{len(unplaced)} of {len(records)} images in {index.folder} have no position, such as {unplaced[0]}; "
            "index them with --positions, or give labelled queries with --data"
        )


def _view(snapshot: Snapshot, id: int, size: Size, number: int) -> Image:
    """Warp and relight a part of a photo, the same each time.

    Raises:
        ImageError: if the file cannot be read.
    """
    return warped_views(snapshot.decode(id), size, np.random.default_rng((SEED, number))).image_b
