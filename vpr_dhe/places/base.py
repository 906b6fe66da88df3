"""What a place recognition data set is, and which retrieved images count as right."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float64, Int64

from vpr_dhe.errors import DatasetError
from vpr_dhe.records import ImageRecord, MetricPosition


@dataclass(frozen=True)
class PlaceSplit:
    """The images of one folder; paths of the records are relative to it."""

    folder: Path
    records: tuple[ImageRecord, ...]


@dataclass(frozen=True)
class PlaceDataset:
    """Database and queries with their ground truth.

    `positives` holds, for each query, the sorted row numbers of the database images that show its place, under the
    rule that `protocol` states in words.
    """

    name: str
    protocol: str
    database: PlaceSplit
    queries: PlaceSplit
    positives: tuple[Int64[np.ndarray, " _found"], ...]


def positives_within(
    database: PlaceSplit, queries: PlaceSplit, radius_m: float
) -> tuple[Int64[np.ndarray, " _found"], ...]:
    """For each query the database images at most `radius_m` away, the radius itself included.

    Raises:
        DatasetError: if an image has no metric position, or positions of different references are mixed.
    """
    from sklearn.neighbors import NearestNeighbors

    known, asked = _metric_positions(database), _metric_positions(queries)
    _require_one_reference(database, queries)
    found = NearestNeighbors(radius=radius_m).fit(known).radius_neighbors(asked, return_distance=False)
    return tuple(np.sort(rows.astype(np.int64)) for rows in found)


def positives_by_frame(
    database_count: int, query_count: int, tolerance: int
) -> tuple[Int64[np.ndarray, " _found"], ...]:
    """For the query of place i in its sorted folder the database images of places i - tolerance to i + tolerance."""
    everything = np.arange(database_count, dtype=np.int64)
    return tuple(everything[max(0, row - tolerance) : row + tolerance + 1] for row in range(query_count))


def _metric_positions(split: PlaceSplit) -> Float64[np.ndarray, "images 2"]:
    positions = [record.position for record in split.records]
    for record, position in zip(split.records, positions, strict=True):
        if not isinstance(position, MetricPosition):
            raise DatasetError(
                f"{split.folder / record.path} has no metric position; expected a name like @utm_east@utm_north@...jpg"
            )
    return np.array([(p.x_m, p.y_m) for p in positions if isinstance(p, MetricPosition)])


def _require_one_reference(database: PlaceSplit, queries: PlaceSplit) -> None:
    positions = [record.position for record in (*database.records, *queries.records)]
    references = sorted({position.reference for position in positions if isinstance(position, MetricPosition)})
    if len(references) > 1:
        raise DatasetError(
            f"{database.folder} and {queries.folder} mix positions of {' and '.join(references)}; "
            "metres of different zones cannot be compared; keep one zone"
        )
