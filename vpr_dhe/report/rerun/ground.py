"""Map view of a recording: a geographic map for degrees, or a plan in metres."""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from vpr_dhe.geography.coordinates import coordinates_of
from vpr_dhe.geography.plane import Plane
from vpr_dhe.records import GeoPosition, MetricPosition, Position, PositionEstimate
from vpr_dhe.report.rerun.recording import Recording

Colour = tuple[int, int, int]
_CORNERS = 32


class Ground:
    """Map of points and lines: geographic if a position of `known` is in degrees, otherwise a plan.

    On a plan, x points east and y south, because y points down in 2D views of Rerun. Positions that cannot be shown are
    skipped.

    Args:
        known: positions of the map.
    """

    def __init__(self, known: Iterable[Position]) -> None:
        self.geographic = any(coordinates_of(position).latitude is not None for position in known)

    def view(self, origin: str) -> Any:
        """Rerun view of the map."""
        import rerun.blueprint as rrb

        return (
            rrb.MapView(origin=origin, name="map") if self.geographic else rrb.Spatial2DView(origin=origin, name="map")
        )

    def points(
        self,
        recording: Recording,
        entity: str,
        positions: Sequence[Position | None],
        colour: Colour,
        radii: float | Sequence[float] = 4.0,
        *,
        static: bool = False,
    ) -> None:
        """Log points with radii in screen pixels; an empty list clears the entity."""
        import rerun as rr

        sizes = np.broadcast_to(np.asarray(radii, np.float64), len(positions))
        shown = [(at, -float(size)) for one, size in zip(positions, sizes, strict=True) if (at := self._at(one))]
        if not shown:
            recording.clear(entity)
            return
        places, negative = zip(*shown, strict=True)
        if self.geographic:
            recording.log(entity, rr.GeoPoints(lat_lon=places, radii=negative, colors=colour), static=static)
        else:
            recording.log(entity, rr.Points2D(places, radii=negative, colors=colour), static=static)

    def lines(
        self,
        recording: Recording,
        entity: str,
        lines: Sequence[Sequence[Position]],
        colour: Colour,
        *,
        static: bool = False,
    ) -> None:
        """Log lines through positions; an empty list clears the entity."""
        import rerun as rr

        found = [[at for one in line if (at := self._at(one))] for line in lines]
        shown = [line for line in found if len(line) > 1]
        if not shown:
            recording.clear(entity)
        elif self.geographic:
            recording.log(entity, rr.GeoLineStrings(lat_lon=shown, radii=-1.5, colors=colour), static=static)
        else:
            recording.log(entity, rr.LineStrips2D(shown, radii=-1.5, colors=colour), static=static)

    def ellipse(self, recording: Recording, entity: str, estimate: PositionEstimate | None, colour: Colour) -> None:
        """Log the ellipse of two standard deviations around an estimate."""
        outline: list[list[Position]] = []
        if estimate is not None:
            angles = np.linspace(0, 2 * np.pi, _CORNERS + 1)
            root = np.linalg.cholesky(estimate.covariance_m2 + 1e-12 * np.eye(2))
            around = 2 * (root @ np.array([np.cos(angles), np.sin(angles)])).T
            outline = [[_moved(estimate.position, east, north) for east, north in around.tolist()]]
        self.lines(recording, entity, outline, colour)

    def _at(self, position: Position | None) -> tuple[float, float] | None:
        if position is None:
            return None
        if self.geographic:
            found = coordinates_of(position)
            return None if found.latitude is None or found.longitude is None else (found.latitude, found.longitude)
        return (position.x_m, -position.y_m) if isinstance(position, MetricPosition) else None


def _moved(position: Position, east_m: float, north_m: float) -> Position:
    if isinstance(position, GeoPosition):
        return Plane(position).position(east_m, north_m)
    return MetricPosition(position.x_m + east_m, position.y_m + north_m, position.reference)
