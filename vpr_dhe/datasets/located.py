"""Data sets with ground truth by distance in 3D, such as between the cameras of a reconstruction.

The frame of a reconstruction has arbitrary axes and an arbitrary unit. Distances are therefore three-dimensional, and
the radius is in the unit of the reconstruction. Positions of records are its x and y, which are horizontal only if z
points up.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float64

from vpr_dhe.datasets.base import PlaceDataset, PlaceSplit
from vpr_dhe.errors import DatasetError
from vpr_dhe.geography.neighbours import rows_within
from vpr_dhe.geography.wgs84 import earth_centred
from vpr_dhe.records import RECONSTRUCTION, GeoPosition, ImageRecord, MetricPosition, Position


@dataclass(frozen=True)
class Spot:
    """Position of an image for its record, and its 3D point for distances."""

    position: Position
    point: tuple[float, float, float]


def spot_in_world(centre: tuple[float, float, float]) -> Spot:
    """Make the spot of a camera centre in the frame of a reconstruction."""
    return Spot(MetricPosition(centre[0], centre[1], RECONSTRUCTION), centre)


def spot_on_earth(position: GeoPosition) -> Spot:
    """Make the spot of a position in degrees, without the height, which GNSS measures inaccurately."""
    x, y, z = earth_centred([position])[0].tolist()
    return Spot(position, (x, y, z))


@dataclass(frozen=True)
class LocatedImages:
    """Paths of the images of a folder, each with its spot or None."""

    folder: Path
    images: tuple[tuple[str, Spot | None], ...]

    @property
    def any_known(self) -> bool:
        """Whether the spot of at least one image is known."""
        return any(spot for _, spot in self.images)

    def known(self) -> "LocatedImages":
        """Select the images whose spot is known."""
        return LocatedImages(self.folder, tuple((path, spot) for path, spot in self.images if spot))

    def split(self) -> PlaceSplit:
        """Make records of the images."""
        return PlaceSplit(
            self.folder, tuple(ImageRecord(path, spot.position if spot else None) for path, spot in self.images)
        )

    def points(self) -> Float64[np.ndarray, "known 3"]:
        """Points of the known spots."""
        return np.array([spot.point for _, spot in self.images if spot])


def dataset_by_distance(
    name: str, source: str, database: LocatedImages, queries: LocatedImages, *, radius: float, unit: str
) -> PlaceDataset:
    """Make a data set with positives at most `radius` away in 3D.

    Images without a spot are dropped and counted in the protocol. If no query has one, the ground truth is not public:
    all images are kept, and positives are None.

    Args:
        name: name of the data set.
        source: description of the source in words.
        database: images of the database.
        queries: images of the queries.
        radius: radius in units of the points.
        unit: unit of the radius, in words.

    Raises:
        DatasetError: if no spot of a database image is known, or no query has a positive.
    """
    if not database.any_known:
        raise DatasetError(
            f"{name}: none of the {len(database.images)} database images has a position ({source}), such as "
            f"{database.images[0][0]}; expected poses of the database images at least"
        )
    if not queries.any_known:
        protocol = f"{source}, queries without positions, ground truth not public"
        return PlaceDataset(name, protocol, database.split(), queries.split(), None)
    near, asked = database.known(), queries.known()
    protocol = f"{source}, within {radius:g} {unit}{_left_out(database, near, queries, asked)}"
    positives = rows_within(near.points(), asked.points(), radius)
    return PlaceDataset(name, protocol, near.split(), asked.split(), positives)


def _left_out(database: LocatedImages, near: LocatedImages, queries: LocatedImages, asked: LocatedImages) -> str:
    sides = (("database images", database, near), ("queries", queries, asked))
    counts = [
        f"{len(everything.images) - len(kept.images)} of {len(everything.images)} {what}"
        for what, everything, kept in sides
        if len(kept.images) < len(everything.images)
    ]
    return f", {' and '.join(counts)} without a position left out" if counts else ""
