"""Place recognition data sets, their ground truth, and their layouts in folders."""

import math
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TypeAlias

import numpy as np
from jaxtyping import Float64, Int64

from vpr_dhe.errors import BadInputError, DatasetError
from vpr_dhe.geography.distance import kind_of, reference_frame_of
from vpr_dhe.geography.neighbours import positions_within
from vpr_dhe.records import ImageRecord
from vpr_dhe.runtime.sampling import evenly_spread

Positives: TypeAlias = tuple[Int64[np.ndarray, " _found"], ...]
"""Sorted indices of the positives of each query: database images that show its place."""


@dataclass(frozen=True)
class PlaceSplit:
    """Images of one folder; paths of the records are relative to it.

    Raises:
        DatasetError: if there are no images, or one is listed twice.
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

    `protocol` describes the data and the rule for positives in words. `positives` is None if the ground truth is not
    public. `panoramas` are the numbers of the source panoramas of database images, if known.
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
                f"{self.name}: none of the {len(self.queries.records)} queries has a positive ({self.protocol}), "
                f"such as {self.queries.records[0].path}; see whether both folders show the same places"
            )

    def limited(self, count: int) -> "PlaceDataset":
        """Copy with at most `count` evenly spaced queries, for quick tests, not for published figures.

        Raises:
            BadInputError: if none of them has a positive.
        """
        total = len(self.queries.records)
        if count >= total:
            return self
        kept = evenly_spread(total, count, with_last=False).tolist()
        if self.positives is not None and not any(self.positives[row].size for row in kept):
            raise BadInputError(f"none of these {count} queries has a positive; raise --queries-limit")
        return replace(
            self,
            protocol=f"{self.protocol}, only {count} of {total} queries",
            queries=replace(self.queries, records=tuple(self.queries.records[row] for row in kept)),
            positives=None if self.positives is None else tuple(self.positives[row] for row in kept),
        )


@dataclass(frozen=True)
class Protocol:
    """Options of an evaluation protocol; None takes the layout's default.

    Args:
        split: train, val or test; for layouts by city also names of cities.
        radius_m: maximum distance of positives in metres.
        heading_tolerance_deg: maximum difference of headings of positives, in addition to the radius.
        frame_tolerance: maximum distance of positives in frames, if images correspond by order.
        query_step: step between query frames; other frames are dropped unless the folder contains only every n-th.
        variant: name of a protocol, for data sets with several.
        database: folder, table or list of the database, relative to the data set.
        queries: folder, table or list of the queries, relative to the data set.
        positions: table of positions.
        ground_truth: file of ground truth.
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
        for name, least in (("frame_tolerance", 0), ("query_step", 1)):
            value = getattr(self, name)
            if value is not None and value < least:
                raise BadInputError(f"{option(name)} is {value}; expected a whole number from {least}")

    @property
    def chosen(self) -> tuple[str, ...]:
        """Names of the options that are set."""
        return tuple(field.name for field in fields(self) if getattr(self, field.name) is not None)


@dataclass(frozen=True)
class Layout:
    """Layout of data sets in folders.

    Args:
        name: name for `--layout`.
        expected: short description for messages.
        options: names of the protocol options that it supports.
        recognises: quick check of whether a folder has the layout.
        read: reader of a data set.
    """

    name: str
    expected: str
    options: frozenset[str]
    recognises: Callable[[Path], bool]
    read: Callable[[Path, Protocol], PlaceDataset]

    def require_taken(self, protocol: Protocol) -> None:
        """Check that the layout supports all options that are set.

        Raises:
            BadInputError: if it does not.
        """
        for name in protocol.chosen:
            if name not in self.options:
                taken = ", ".join(sorted(map(option, self.options)))
                raise BadInputError(f"layout {self.name} has no {option(name)}; it takes {taken}")


def option(name: str) -> str:
    """Name of a protocol option on the command line."""
    return "--" + name.replace("_", "-")


def positives_within(database: PlaceSplit, queries: PlaceSplit, radius_m: float) -> Positives:
    """Find the database images at most `radius_m` from each query, inclusive.

    Distances are planar within one UTM zone or one frame of the user. Otherwise (degrees, or across zone borders or the
    equator) they are along the straight line, which at such distances equals the distance on the ground.

    Raises:
        DatasetError: if an image has no position, or some positions cannot be compared.
    """
    _require_comparable([database, queries])
    known, asked = ([record.position for record in split.records if record.position] for split in (database, queries))
    return positions_within(known, asked, radius_m)


def positives_facing(
    database: PlaceSplit,
    queries: PlaceSplit,
    positives: Positives,
    tolerance_deg: float,
) -> Positives:
    """Keep the positives whose heading differs from the query's by at most `tolerance_deg`, inclusive.

    Raises:
        DatasetError: if the heading of an image is unknown.
    """
    known, asked = _headings_deg(database), _headings_deg(queries)
    differences = (
        abs((known[rows] - heading + 180) % 360 - 180) for rows, heading in zip(positives, asked, strict=True)
    )
    return tuple(rows[turned <= tolerance_deg] for rows, turned in zip(positives, differences, strict=True))


def positives_by_frame(database_count: int, frames: Sequence[int], tolerance: int) -> Positives:
    """Select the database images from `frame - tolerance` to `frame + tolerance` for the frame of each query."""
    everything = np.arange(database_count, dtype=np.int64)
    return tuple(everything[max(0, frame - tolerance) : max(0, frame + tolerance + 1)] for frame in frames)


def _headings_deg(split: PlaceSplit) -> Float64[np.ndarray, " images"]:
    headings = [record.heading_deg for record in split.records]
    if None in headings:
        path = split.folder / split.records[headings.index(None)].path
        raise DatasetError(f"{path} has no heading; expected one in its name, its EXIF block or a table of positions")
    return np.array(headings, dtype=np.float64)


def _require_apart(database: PlaceSplit, queries: PlaceSplit) -> None:
    """Check that no image is in the database and among the queries."""
    database_folder, queries_folder = database.folder.resolve(), queries.folder.resolve()
    known = {str(database_folder / record.path) for record in database.records}
    shared = [record.path for record in queries.records if str(queries_folder / record.path) in known]
    if shared:
        raise DatasetError(
            f"{queries.folder / shared[0]} is in the database and among the queries, one of {len(shared)} such images; "
            "an image must not be its own positive; keep database and queries apart"
        )


def _require_comparable(splits: Iterable[PlaceSplit]) -> None:
    """Check that all images have positions in one reference frame."""
    example: dict[str, tuple[str, Path]] = {}
    for split in splits:
        for record in split.records:
            if record.position is None:
                raise DatasetError(
                    f"{split.folder / record.path} has no position; expected a name like @utm_east@utm_north@...jpg, "
                    "GPS coordinates in its EXIF block, or a row in a table of positions"
                )
            example.setdefault(
                reference_frame_of(record.position), (kind_of(record.position), split.folder / record.path)
            )
    if len(example) > 1:
        (one, first), (other, second) = list(example.values())[:2]
        raise DatasetError(
            f"{first} has a position in {one}, {second} in {other}; such positions cannot be compared; keep one kind"
        )
