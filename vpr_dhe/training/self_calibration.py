"""Queries for a calibration out of the index alone: its own images, warped and in another light."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np

from vpr_dhe.errors import BadInputError
from vpr_dhe.evaluation.calibration_runs import LabelledQuery
from vpr_dhe.index.place_index import PlaceIndex
from vpr_dhe.places.base import PlaceSplit, positives_within
from vpr_dhe.records import Image, ImageRecord, Size
from vpr_dhe.training.sources.warps import WarpedPhotos

SEED = 0


def warped_queries(index: PlaceIndex, count: int, radius_m: float) -> list[LabelledQuery]:
    """Views of at most `count` indexed images, spread evenly, each as another photo of the place might be.

    What shows the place of such a query is the image itself, and all at most `radius_m` away from it. Views are made as
    the training of verifiers makes them, and lack what really changes between two visits: calibrate on real queries
    where there are any.

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
    rows = np.unique(np.linspace(0, len(records) - 1, min(count, len(records))).astype(int))
    chosen = tuple(records[row] for row in rows)
    near = positives_within(PlaceSplit(folder, tuple(records)), PlaceSplit(folder, chosen), radius_m)
    return [
        LabelledQuery(
            record.path,
            partial(_view, folder / record.path, index.spec.input_size, number),
            frozenset(index.ids[found].tolist()),
        )
        for number, (record, found) in enumerate(zip(chosen, near, strict=True))
    ]


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
    return WarpedPhotos([path], size, path.name).pair(0, np.random.default_rng((SEED, number))).image_b
