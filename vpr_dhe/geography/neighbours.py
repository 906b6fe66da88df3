"""Neighbour search by radius."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from jaxtyping import Float64, Int64

from vpr_dhe.geography.distance import EARTH, reference_frame_of
from vpr_dhe.geography.utm import Zone, all_to_degrees, readings, zones_of
from vpr_dhe.geography.wgs84 import earth_centred
from vpr_dhe.records import RECONSTRUCTION, GeoPosition, MetricPosition, Position


def rows_within(
    points: Float64[np.ndarray, "points axes"], centres: Float64[np.ndarray, "centres axes"], radius: float
) -> tuple[Int64[np.ndarray, " _found"], ...]:
    """Find the sorted rows of the points at most `radius` away from each centre, inclusive."""
    from sklearn.neighbors import NearestNeighbors

    # A tree even for small sets, because scikit-learn's brute force loses precision for large coordinates.
    neighbours = NearestNeighbors(radius=radius, algorithm="kd_tree").fit(points)
    found = neighbours.radius_neighbors(centres, return_distance=False)
    return tuple(np.sort(rows.astype(np.int64)) for rows in found)


class PositionSearch:
    """Index of positions for radius searches, which take milliseconds for a million positions.

    Args:
        positions: None where unknown; such rows are never found.
    """

    def __init__(self, positions: Sequence[Position | None]) -> None:
        known = [(row, position) for row, position in enumerate(positions) if position is not None]
        places = np.array([row for row, _ in known], np.int64)
        self._frames = [
            _FramePoints.of([known[number][1] for number in numbers], places[numbers], frame)
            for frame, numbers in _by_frame([position for _, position in known], None).items()
        ]

    @property
    def reference_frames(self) -> frozenset[str]:
        """Reference frames of the positions, as `reference_frame_of` names them."""
        return frozenset(one.frame.reference for one in self._frames)

    @property
    def has_metres(self) -> bool:
        """Whether any position has coordinates in metres, such as UTM."""
        return any(one.plane is not None and one.frame.reference != RECONSTRUCTION for one in self._frames)

    def comparable(self, centre: Position) -> Int64[np.ndarray, " rows"]:
        """Find the sorted rows of the positions whose distance from a centre is defined."""
        return _sorted([one.rows for one in self._frames if one.frame.reference == reference_frame_of(centre)])

    def within(self, centre: Position, radius_m: float) -> Int64[np.ndarray, " found"]:
        """Find the sorted rows of the positions at most `radius_m` away from a centre, as `apart` measures it."""
        near = [
            one.within(centre, radius_m) for one in self._frames if one.frame.reference == reference_frame_of(centre)
        ]
        return _sorted(near)


def _sorted(rows: Sequence[Int64[np.ndarray, " _rows"]]) -> Int64[np.ndarray, " all"]:
    return np.unique(np.concatenate(rows)) if rows else np.empty(0, np.int64)


def positions_within(
    positions: Sequence[Position], centres: Sequence[Position], radius_m: float
) -> tuple[Int64[np.ndarray, " _found"], ...]:
    """Find the sorted rows of the positions at most `radius_m` away from each centre, as `apart` measures it."""
    found: list[set[int]] = [set() for _ in centres]
    for rows, points, asked, where in _comparisons(positions, centres):
        for centre, near in zip(asked, rows_within(points, where, radius_m), strict=True):
            found[centre].update(rows[near].tolist())
    return tuple(np.array(sorted(rows), np.int64) for rows in found)


_Rows = Int64[np.ndarray, " _rows"]
_Points = Float64[np.ndarray, "_rows _axes"]


class _Frame(NamedTuple):
    """Reference frame of coordinates and, of UTM, the zone."""

    reference: str
    zone: Zone | None


@dataclass(frozen=True)
class _FramePoints:
    """Positions of one frame by their rows.

    `plane` are planar coordinates in metres, if the frame has a plane; `earth` are earth-centred, if it is on Earth.
    """

    frame: _Frame
    rows: Int64[np.ndarray, " positions"]
    plane: Float64[np.ndarray, "positions 2"] | None
    earth: Float64[np.ndarray, "positions 3"] | None

    @classmethod
    def of(cls, positions: Sequence[Position], rows: Int64[np.ndarray, " positions"], frame: _Frame) -> "_FramePoints":
        is_earth = frame.reference == EARTH
        plane = None if is_earth and frame.zone is None else _metres(positions)
        return cls(frame, rows, plane, _earth_centred(positions, frame) if is_earth else None)

    def within(self, centre: Position, radius_m: float) -> Int64[np.ndarray, " found"]:
        """Find the rows at most `radius_m` away from a centre of the same reference frame."""
        if isinstance(centre, MetricPosition) and (self.earth is None or self.frame.zone in zones_of(centre)):
            assert self.plane is not None
            return self._near(self.plane, np.array([[centre.x_m, centre.y_m]]), radius_m)
        assert self.earth is not None
        return self._near(self.earth, earth_centred(readings(centre)), radius_m)

    def _near(
        self, points: Float64[np.ndarray, "positions _axes"], centres: Float64[np.ndarray, "_ _axes"], radius_m: float
    ) -> Int64[np.ndarray, " found"]:
        distances = [np.linalg.norm(points - centre, axis=1) for centre in centres]
        return self.rows[np.any([apart_m <= radius_m for apart_m in distances], axis=0)]


def _comparisons(
    positions: Sequence[Position], centres: Sequence[Position]
) -> Iterator[tuple[_Rows, _Points, _Rows, _Points]]:
    """Yield rows and points of positions and of centres that are compared with each other.

    Within a frame, its own coordinates are compared; between frames on Earth, earth-centred coordinates.
    """
    shared = _shared_zone([*positions, *centres])
    known, asked = _by_frame(positions, shared), _by_frame(centres, shared)
    for frame in known.keys() & asked.keys():
        sides = (positions, known[frame]), (centres, asked[frame])
        if frame == (EARTH, None):
            points = [_earth_centred(_taken(side, rows), frame) for side, rows in sides]
        else:
            points = [_metres(_taken(side, rows)) for side, rows in sides]
        yield np.array(known[frame]), points[0], np.array(asked[frame]), points[1]
    on_earth = {frame for frame in known.keys() | asked.keys() if frame.reference == EARTH}
    if len(on_earth) < 2:
        return
    earthly = {
        frame: _earth_centred(_taken(centres, rows), frame) for frame, rows in asked.items() if frame in on_earth
    }
    for frame in known.keys() & on_earth:
        others = [other for other in earthly if other != frame]
        if others:
            points = _earth_centred(_taken(positions, known[frame]), frame)
            rows = np.concatenate([asked[other] for other in others])
            yield np.array(known[frame]), points, rows, np.concatenate([earthly[other] for other in others])


def _shared_zone(positions: Iterable[Position]) -> Zone | None:
    """Likeliest zone that all positions on Earth may refer to."""
    shared: tuple[Zone, ...] | None = None
    for position in positions:
        if reference_frame_of(position) == EARTH:
            zones = zones_of(position)
            shared = zones if shared is None else tuple(zone for zone in shared if zone in zones)
            if not shared:
                return None
    return shared[0] if shared else None


def _by_frame(positions: Sequence[Position], shared: Zone | None) -> dict[_Frame, list[int]]:
    """Rows of the positions in each frame; without a shared zone, positions of unknown hemisphere are in two frames."""
    rows: dict[_Frame, list[int]] = {}
    for row, position in enumerate(positions):
        reference = reference_frame_of(position)
        zones = (shared,) if shared and reference == EARTH else zones_of(position) or (None,)
        for zone in zones:
            rows.setdefault(_Frame(reference, zone), []).append(row)
    return rows


def _taken(positions: Sequence[Position], rows: Sequence[int]) -> list[Position]:
    return [positions[row] for row in rows]


def _metres(positions: Sequence[Position]) -> _Points:
    return np.array([(one.x_m, one.y_m) for one in positions if isinstance(one, MetricPosition)], np.float64)


def _earth_centred(positions: Sequence[Position], frame: _Frame) -> _Points:
    if frame.zone is not None:
        return earth_centred(all_to_degrees(_metres(positions), frame.zone))
    return earth_centred([position for position in positions if isinstance(position, GeoPosition)])
