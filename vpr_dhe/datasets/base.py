"""What a place recognition data set is, which retrieved images count as right, and what a layout is."""

import math
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TypeAlias

import numpy as np
from jaxtyping import Float64, Int64

from vpr_dhe.errors import BadInputError, DatasetError
from vpr_dhe.geography.distance import kind_of, plane_of
from vpr_dhe.geography.neighbours import rows_within
from vpr_dhe.geography.wgs84 import earth_centred
from vpr_dhe.records import GeoPosition, ImageRecord, MetricPosition
from vpr_dhe.runtime.sampling import evenly_spread

Positives: TypeAlias = tuple[Int64[np.ndarray, " _found"], ...]
"""For each query the sorted rows of the database images that show its place."""


@dataclass(frozen=True)
class PlaceSplit:
    """Some images of one folder; paths of the records are relative to it.

    Raises:
        DatasetError: if there is no image, or one is listed twice.
    """

    folder: Path
    records: tuple[ImageRecord, ...]

    def __post_init__(self) -> None:
        if not self.records:
            raise DatasetError(f"{self.folder}: the split is empty; expected at least one image")
        path, times = Counter(record.path for record in self.records).most_common(1)[0]
        if times > 1:
            raise DatasetError(f"{self.folder / path} is listed {times} times; list each image once")


@dataclass(frozen=True)
class PlaceDataset:
    """Database and queries with their ground truth.

    `protocol` states in words what was read and what counts as right. `positives` is None where the ground truth is not
    public. `panoramas` gives for each database image the number of the panorama that it was cut from, where that is
    known.
    """

    name: str
    protocol: str
    database: PlaceSplit
    queries: PlaceSplit
    positives: Positives | None
    panoramas: Int64[np.ndarray, " _database"] | None = None

    def __post_init__(self) -> None:
        _require_apart(self.database, self.queries)
        if self.positives is not None and not any(rows.size for rows in self.positives):
            raise DatasetError(
                f"{self.name}: none of the {len(self.queries.records)} queries has a right answer ({self.protocol}), "
                f"such as {self.queries.records[0].path}; see whether both folders show the same places"
            )

    def limited(self, count: int) -> "PlaceDataset":
        """A data set of at most this many of the queries, spread evenly: for a quick look, and never for a figure.

        Raises:
            BadInputError: if none of these has a right answer.
        """
        total = len(self.queries.records)
        if count >= total:
            return self
        kept = evenly_spread(total, count, with_last=False).tolist()
        if self.positives is not None and not any(self.positives[row].size for row in kept):
            raise BadInputError(f"none of the {count} queries looked at has a right answer; raise --queries-limit")
        return replace(
            self,
            protocol=f"{self.protocol}, only {count} of {total} queries",
            queries=replace(self.queries, records=tuple(self.queries.records[row] for row in kept)),
            positives=None if self.positives is None else tuple(self.positives[row] for row in kept),
        )


@dataclass(frozen=True)
class Protocol:
    """What the caller may choose of a data set's protocol; None leaves it to the layout.

    Args:
        split: train, val or test; of layouts by city also names of cities.
        radius_m: distance in metres up to which an image shows the query's place.
        heading_tolerance_deg: up to which difference of headings an image shows the same, besides being near.
        frame_tolerance: distance in frames, where images correspond by their order.
        query_step: of how many frames one is a query; the others are left out, unless they are missing already.
        variant: one of several protocols of a data set, by name.
        database: the folder, table or list that the database is in, relative to the data set.
        queries: the same for the queries.
        positions: a table of positions.
        ground_truth: a file that says which images are right.
    """

    split: str | None = None
    radius_m: float | None = None
    heading_tolerance_deg: float | None = None
    frame_tolerance: int | None = None
    query_step: int | None = None
    variant: str | None = None
    database: str | None = None
    queries: str | None = None
    positions: Path | None = None
    ground_truth: Path | None = None

    def __post_init__(self) -> None:
        for name in ("radius_m", "heading_tolerance_deg"):
            value = getattr(self, name)
            if value is not None and not (math.isfinite(value) and value >= 0):
                raise BadInputError(f"{option(name)} is {value}; expected a number from 0")

    @property
    def chosen(self) -> tuple[str, ...]:
        """Names of what the caller chose."""
        return tuple(field.name for field in fields(self) if getattr(self, field.name) is not None)


@dataclass(frozen=True)
class Layout:
    """One way in which data sets lie in folders.

    `expected` says in a few words how; `options` names what of the protocol may be chosen; `recognises` looks at a
    folder without reading it all.
    """

    name: str
    expected: str
    options: frozenset[str]
    recognises: Callable[[Path], bool]
    read: Callable[[Path, Protocol], PlaceDataset]

    def require_taken(self, protocol: Protocol) -> None:
        """Raise BadInputError where the caller chose what this layout knows nothing of."""
        for name in protocol.chosen:
            if name not in self.options:
                taken = ", ".join(sorted(map(option, self.options)))
                raise BadInputError(f"layout {self.name} has no {option(name)}; it takes {taken}")


def option(name: str) -> str:
    """What a choice of the protocol is called on the command line."""
    return "--" + name.replace("_", "-")


def positives_within(database: PlaceSplit, queries: PlaceSplit, radius_m: float) -> Positives:
    """For each query the database images at most `radius_m` away, the radius itself included.

    Metric positions are compared in their plane, and images of different UTM zones or hemispheres are never near each
    other. Positions in degrees are compared by the straight line between them, which for distances of streets is the
    distance on the ground.

    Raises:
        DatasetError: if an image has no position, or one has metres and another degrees, or metres of another kind.
    """
    _require_comparable([database, queries])
    known, asked = _by_plane(database), _by_plane(queries)
    nowhere = np.empty(0, dtype=np.int64)
    positives = [nowhere] * len(queries.records)
    for plane in known.keys() & asked.keys():
        rows = np.array(known[plane])
        near = rows_within(_coordinates(database, known[plane]), _coordinates(queries, asked[plane]), radius_m)
        for query, found in zip(asked[plane], near, strict=True):
            positives[query] = rows[found]
    return tuple(positives)


def positives_facing(
    database: PlaceSplit,
    queries: PlaceSplit,
    positives: Positives,
    tolerance_deg: float,
) -> Positives:
    """Of the positives those whose heading differs from the query's by at most `tolerance_deg`, itself included.

    Raises:
        DatasetError: if the heading of an image is not known.
    """
    known, asked = _headings_deg(database), _headings_deg(queries)
    differences = (
        abs((known[rows] - heading + 180) % 360 - 180) for rows, heading in zip(positives, asked, strict=True)
    )
    return tuple(rows[turned <= tolerance_deg] for rows, turned in zip(positives, differences, strict=True))


def positives_by_frame(database_count: int, frames: Sequence[int], tolerance: int) -> Positives:
    """For the query of each frame the database images of frames `frame - tolerance` to `frame + tolerance`."""
    everything = np.arange(database_count, dtype=np.int64)
    return tuple(everything[max(0, frame - tolerance) : max(0, frame + tolerance + 1)] for frame in frames)


def _by_plane(split: PlaceSplit) -> dict[str, list[int]]:
    """The rows of the images that lie in each plane."""
    rows: dict[str, list[int]] = {}
    for row, record in enumerate(split.records):
        rows.setdefault(plane_of(record.position), []).append(row)
    return rows


def _coordinates(split: PlaceSplit, rows: Sequence[int]) -> Float64[np.ndarray, "images axes"]:
    """Coordinates of images that lie in one plane."""
    positions = [split.records[row].position for row in rows]
    metric = [(position.x_m, position.y_m) for position in positions if isinstance(position, MetricPosition)]
    degrees = [position for position in positions if isinstance(position, GeoPosition)]
    return np.array(metric) if metric else earth_centred(degrees)


def _headings_deg(split: PlaceSplit) -> Float64[np.ndarray, " images"]:
    headings = [record.heading_deg for record in split.records]
    if None in headings:
        path = split.folder / split.records[headings.index(None)].path
        raise DatasetError(f"{path} has no heading; expected one in its name, its EXIF block or a table of positions")
    return np.array(headings, dtype=np.float64)


def _require_apart(database: PlaceSplit, queries: PlaceSplit) -> None:
    """Raise where an image is its own right answer."""
    database_folder, queries_folder = database.folder.resolve(), queries.folder.resolve()
    known = {str(database_folder / record.path) for record in database.records}
    shared = [record.path for record in queries.records if str(queries_folder / record.path) in known]
    if shared:
        raise DatasetError(
            f"{queries.folder / shared[0]} is in the database and among the queries, one of {len(shared)} such images; "
            "an image that is asked for must not be its own answer; keep them apart"
        )


def _require_comparable(splits: Iterable[PlaceSplit]) -> None:
    """Raise unless all images have positions of one kind."""
    example: dict[str, Path] = {}
    for split in splits:
        for record in split.records:
            if record.position is None:
                raise DatasetError(
                    f"{split.folder / record.path} has no position; expected a name like @utm_east@utm_north@...jpg, "
                    "GPS coordinates in its EXIF block, or a row in a table of positions"
                )
            example.setdefault(kind_of(record.position), split.folder / record.path)
    if len(example) > 1:
        (one, first), (other, second) = list(example.items())[:2]
        raise DatasetError(
            f"{first} has a position in {one}, {second} in {other}; such positions cannot be compared; keep one kind"
        )
