"""Facts about the images of a map that tell which of them show one place."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float64, Int64

from vpr_dhe.geography.distance import RADIUS_M, reference_frame_of
from vpr_dhe.geography.neighbours import rows_within
from vpr_dhe.geography.plane import Plane
from vpr_dhe.records import RECONSTRUCTION, ImageRecord

SPOT_M = 1.0
"""Largest distance of images taken from one spot."""

RECENT_S = 30.0
"""Images of one traverse this close in time may show one scene without a revisit."""

RECENT_FRAMES = 30
"""The same in frames, ordered by time."""

Neighbours = tuple[Int64[np.ndarray, " _found"], ...]


@dataclass(frozen=True)
class MapImages:
    """Positions in metres, headings and times of images; NaN where unknown."""

    points_m: Float64[np.ndarray, "images 2"]
    headings_deg: Float64[np.ndarray, " images"]
    times_s: Float64[np.ndarray, " images"]

    @classmethod
    def of(cls, records: Sequence[ImageRecord]) -> "MapImages":
        """Collect the facts of records; positions that cannot be compared in metres count as unknown."""
        headings = [record.heading_deg for record in records]
        times = [record.timestamp_s for record in records]
        return cls(_points(records), np.array(headings, np.float64), np.array(times, np.float64))

    def __len__(self) -> int:
        return len(self.points_m)

    def take(self, rows: Int64[np.ndarray, " chosen"]) -> "MapImages":
        """Select some images."""
        return MapImages(self.points_m[rows], self.headings_deg[rows], self.times_s[rows])

    @property
    def have_positions(self) -> bool:
        """Whether every image has a position."""
        return bool(len(self)) and not bool(np.isnan(self.points_m).any())

    @property
    def have_times(self) -> bool:
        """Whether every image has a time."""
        return bool(len(self)) and not bool(np.isnan(self.times_s).any())

    def near(self, rows: Int64[np.ndarray, " centres"], radius_m: float = RADIUS_M) -> Neighbours:
        """Images at most `radius_m` away from each of some images, itself included; needs positions."""
        return self.near_points(self.points_m[rows], radius_m)

    def near_points(self, points_m: Float64[np.ndarray, "centres 2"], radius_m: float = RADIUS_M) -> Neighbours:
        """Images at most `radius_m` away from each of some points; images without a position are nowhere."""
        placed = np.flatnonzero(~np.isnan(self.points_m).any(axis=1))
        if not (len(placed) and len(points_m)):
            return (placed[:0],) * len(points_m)
        return tuple(placed[found] for found in rows_within(self.points_m[placed], points_m, radius_m))

    def recent(self, rows: Int64[np.ndarray, " centres"]) -> Neighbours:
        """Images at most 30 s or 30 frames before or after each of some images, itself included; alone without times.

        Frames count only for images of one traverse: those with a gap of at most 30 s from one to the next.
        """
        if not self.have_times:
            return tuple(rows[[number]] for number in range(len(rows)))
        order = np.argsort(self.times_s, kind="stable")
        place = np.argsort(order, kind="stable")[rows]
        times = self.times_s[order]
        traverse = np.cumsum(np.diff(times, prepend=times[:1]) > RECENT_S)
        first = np.searchsorted(times, self.times_s[rows] - RECENT_S, side="left")
        last = np.searchsorted(times, self.times_s[rows] + RECENT_S, side="right")
        first = np.minimum(first, np.maximum(place - RECENT_FRAMES, np.searchsorted(traverse, traverse[place])))
        end_of_traverse = np.searchsorted(traverse, traverse[place], side="right")
        last = np.maximum(last, np.minimum(place + RECENT_FRAMES + 1, end_of_traverse))
        return tuple(np.sort(order[start:end]) for start, end in zip(first, last, strict=True))

    def blocks(self, count: int) -> Int64[np.ndarray, " images"]:
        """Assign images to contiguous blocks of about equal size: along the longest extent of the map, or by time.

        Without positions and times, images stay in the order given.
        """
        if self.have_positions:
            centred = self.points_m - self.points_m.mean(axis=0)
            _, axes = np.linalg.eigh(centred.T @ centred)
            order = np.argsort(centred @ axes[:, -1], kind="stable")
        elif self.have_times:
            order = np.argsort(self.times_s, kind="stable")
        else:
            order = np.arange(len(self))
        blocks = np.empty(len(self), np.int64)
        blocks[order] = np.arange(len(self)) * count // max(1, len(self))
        return blocks


def mask_of(neighbours: Neighbours, columns: int) -> Bool[np.ndarray, "rows columns"]:
    """Mask that is set at the neighbours of each row."""
    mask = np.zeros((len(neighbours), columns), bool)
    for row, found in enumerate(neighbours):
        mask[row, found] = True
    return mask


def _points(records: Sequence[ImageRecord]) -> Float64[np.ndarray, "images 2"]:
    positions = [record.position for record in records]
    known = [position for position in positions if position is not None]
    frames = {reference_frame_of(position) for position in known}
    if len(frames) != 1 or frames == {RECONSTRUCTION}:
        return np.full((len(records), 2), np.nan)
    # The first, so that the images that are added later lie in the same plane.
    return Plane.around(known, known[0]).metres(positions)
