"""Queries for a calibration out of the index alone: its own images, warped and in another light."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np

from vpr_dhe.datasets.augmentation import warped_views
from vpr_dhe.datasets.base import PlaceSplit, positives_within
from vpr_dhe.errors import BadInputError
from vpr_dhe.evaluation.calibration_runs import LabelledQuery
from vpr_dhe.images import decode_named
from vpr_dhe.index.place_index import PlaceIndex
from vpr_dhe.records import Image, ImageRecord, Size
from vpr_dhe.runtime.sampling import evenly_spread

SEED = 0


def warped_queries(index: PlaceIndex, count: int, radius_m: float) -> list[LabelledQuery]:
    """Views of at most `count` indexed images, spread evenly, each as another photo of the place might be.

    What shows the place of such a view are the images at most `radius_m` away. Of these the image itself is withheld,
    unless it is the only one: a view of an image finds it with far more inliers than another photo of the place would.
    On streets of which half the blocks were not indexed, right answers by `magsac` to real queries had 67 inliers in
    the median, to such views 177, and 47 with the image withheld; probabilities of the real queries were then off by
    0.24, and by 0.05 (expected calibration error). Calibrate on real queries where there are any.

    Raises:
        BadInputError: if an image has no position, or the images folder is gone.
    """
    folder = Path(index.manifest.images_folder)
    if not folder.is_dir():
        raise BadInputError(
            f"the indexed images are not in {folder} any more, and calibration without labelled queries makes its "
            "queries of them; put them back, or give labelled queries with --data"
        )
    records = [index.image(int(id)) for id in index.ids]
    _require_positions(records, index)
    rows = evenly_spread(len(records), count)
    chosen = tuple(records[row] for row in rows)
    near = positives_within(PlaceSplit(folder, tuple(records)), PlaceSplit(folder, chosen), radius_m)
    return [
        _query(record, folder, index, number, frozenset(index.ids[found].tolist()))
        for number, (record, found) in enumerate(zip(chosen, near, strict=True))
    ]


def _query(
    record: ImageRecord, folder: Path, index: PlaceIndex, number: int, shown_by: frozenset[int]
) -> LabelledQuery:
    view = partial(_view, folder / record.path, index.spec.input_size, number)
    others = frozenset(id for id in shown_by if id != index.find(record.path))
    return LabelledQuery(record.path, view, others or shown_by, shown_by - others if others else frozenset())


def _require_positions(records: Sequence[ImageRecord], index: PlaceIndex) -> None:
    nowhere = [record.path for record in records if record.position is None]
    if nowhere:
        raise BadInputError(
            f"{len(nowhere)} of {len(records)} images in {index.folder} have no position, such as {nowhere[0]}, so "
            "nobody knows which images show another place; index them with --positions, or give labelled queries "
            "with --data"
        )


def _view(path: Path, size: Size, number: int) -> Image:
    """A part of a photo, warped and relit; the same each time.

    Raises:
        ImageError: if the file cannot be read.
    """
    return warped_views(decode_named(path), size, np.random.default_rng((SEED, number))).image_b
