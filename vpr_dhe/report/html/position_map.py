"""Map of positions as SVG: north up, no background, with a scale bar."""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64
from markupsafe import Markup

from vpr_dhe.geography.distance import reference_frame_of, unit_of
from vpr_dhe.geography.plane import Plane
from vpr_dhe.records import GeoPosition, Position, PositionEstimate

DATABASE = "database"
"""Kind of spots that are drawn below the others."""
MAX_DATABASE_SPOTS = 3000
"""Maximum number of database spots, evenly sampled; browsers are slow with more."""

_WIDTH = 640
_MIN_HEIGHT, _MAX_HEIGHT = 240, 480
_MARGIN = 28
_MIN_EXTENT_M = 20.0
# Spots of another zone that are farther away would make the others too small.
_MAX_GAP_M = 100_000.0
_SCALE_SHARE = 0.25
# Standard deviations along the axes of an ellipse.
_DEVIATIONS = 2.0
_DOT_PX = {DATABASE: 2.5}
_OTHER_DOT_PX = 5.0


@dataclass(frozen=True)
class Spot:
    """Dot: `kind` selects its style, `link` is its target in the page, `answer` the end of a line from it.

    `estimate` is drawn as an ellipse of two standard deviations.
    """

    position: Position
    kind: str
    title: str
    link: str | None = None
    answer: Position | None = None
    estimate: PositionEstimate | None = None


@dataclass(frozen=True)
class PositionMap:
    """Rendered map and number of spots by kind; `elsewhere` counts spots far away or in another frame.

    `estimates` is the number of ellipses.
    """

    svg: Markup
    counts: dict[str, int]
    elsewhere: int
    estimates: int = 0


def draw_map(spots: Sequence[Spot]) -> PositionMap | None:
    """Draw spots, later ones over earlier ones; None if there are none."""
    if not spots:
        return None
    drawn, plane = _common(spots)
    view = _View.around(plane.metres([spot.position for spot in drawn]))
    ellipses = [_ellipse(spot.estimate, plane, view) for spot in drawn if spot.estimate]
    parts = [*ellipses, *(_miss(spot, plane, view) for spot in drawn if spot.answer), *_dots(drawn, plane, view)]
    counts = Counter(spot.kind for spot in drawn)
    label = "Map of positions: " + ", ".join(f"{count} {kind}" for kind, count in counts.items())
    opening = Markup('<svg class="map" viewBox="0 0 {} {:.0f}" role="img" aria-label="{}">').format(
        _WIDTH, view.height, label
    )
    unit = unit_of(reference_frame_of(plane.origin))
    svg = opening + Markup("").join(parts) + _scale_bar(view, unit) + Markup("</svg>")
    return PositionMap(svg, dict(counts), len(spots) - len(drawn), len(ellipses))


def _common(spots: Sequence[Spot]) -> tuple[list[Spot], Plane]:
    """Select the spots of the most frequent reference and others near them, and their plane."""
    reference = Counter(_reference(spot.position) for spot in spots).most_common(1)[0][0]
    main = [spot.position for spot in spots if _reference(spot.position) == reference]
    frame = reference_frame_of(main[0])
    comparable = [spot for spot in spots if reference_frame_of(spot.position) == frame]
    plane = Plane.around([spot.position for spot in comparable], main[len(main) // 2])
    points, inside = plane.metres([spot.position for spot in comparable]), plane.metres(main)
    gaps = np.maximum(inside.min(axis=0) - points, points - inside.max(axis=0))
    near = (gaps <= _MAX_GAP_M).all(axis=1)
    return [spot for spot, drawn in zip(comparable, near.tolist(), strict=True) if drawn], plane


def _reference(position: Position) -> str:
    return "" if isinstance(position, GeoPosition) else position.reference


@dataclass(frozen=True)
class _View:
    """Transform from metres to the picture: north-west corner, pixels per metre, and the picture's height."""

    west_m: float
    north_m: float
    scale: float
    height: float

    @classmethod
    def around(cls, points: Float64[np.ndarray, "spots 2"]) -> "_View":
        """View that contains all points."""
        low, high = points.min(axis=0), points.max(axis=0)
        extent = np.maximum(high - low, _MIN_EXTENT_M)
        low = (low + high - extent) / 2
        inner = _WIDTH - 2 * _MARGIN
        scale = min(inner / extent[0], (_MAX_HEIGHT - 2 * _MARGIN) / extent[1])
        height = max(_MIN_HEIGHT, extent[1] * scale + 2 * _MARGIN)
        # Centred if the picture is wider or higher than its content.
        west_m = low[0] - (_WIDTH / scale - extent[0]) / 2
        north_m = low[1] + extent[1] + (height / scale - extent[1]) / 2
        return cls(float(west_m), float(north_m), float(scale), float(height))

    def to_picture(self, point: Float64[np.ndarray, "2"]) -> tuple[float, float]:
        """Picture coordinates of a point."""
        return (float(point[0]) - self.west_m) * self.scale, (self.north_m - float(point[1])) * self.scale


def _dots(spots: Sequence[Spot], plane: Plane, view: _View) -> list[Markup]:
    points = plane.metres([spot.position for spot in spots])
    return [_dot(spot, view.to_picture(point)) for spot, point in zip(spots, points, strict=True)]


def _dot(spot: Spot, centre: tuple[float, float]) -> Markup:
    dot = Markup('<circle class="dot place-{}" cx="{:.1f}" cy="{:.1f}" r="{}"><title>{}</title></circle>').format(
        spot.kind, *centre, _DOT_PX.get(spot.kind, _OTHER_DOT_PX), spot.title
    )
    # Not in the tab order: the list of queries has the same links.
    return Markup('<a href="#{}" tabindex="-1">{}</a>').format(spot.link, dot) if spot.link else dot


def _ellipse(estimate: PositionEstimate, plane: Plane, view: _View) -> Markup:
    """Ellipse of an estimate; converts azimuths from north to SVG angles from the right, both clockwise."""
    x, y = view.to_picture(plane.metres([estimate.position])[0])
    longer, shorter = (_DEVIATIONS * axis * view.scale for axis in estimate.semi_axes_m)
    return Markup(
        '<g class="estimate"><ellipse cx="{0:.1f}" cy="{1:.1f}" rx="{2:.1f}" ry="{3:.1f}" '
        'transform="rotate({4:.1f} {0:.1f} {1:.1f})"/></g>'
    ).format(x, y, longer, shorter, estimate.orientation_deg - 90)


def _miss(spot: Spot, plane: Plane, view: _View) -> Markup:
    points = plane.metres([spot.position, spot.answer])
    if np.isnan(points).any():
        return Markup("")
    start, end = (view.to_picture(point) for point in points)
    return Markup('<line class="miss" x1="{:.1f}" y1="{:.1f}" x2="{:.1f}" y2="{:.1f}"/>').format(*start, *end)


def _scale_bar(view: _View, unit: str) -> Markup:
    """Scale bar of a round length."""
    max_m = _SCALE_SHARE * _WIDTH / view.scale
    power = 10.0 ** math.floor(math.log10(max_m))
    length_m = max(factor * power for factor in (1, 2, 5) if factor * power <= max_m)
    y, end = view.height - 14, 14 + length_m * view.scale
    return Markup(
        '<path class="curve series-bar" d="M14 {0:.1f}H{1:.1f}M14 {2:.1f}v8M{1:.1f} {2:.1f}v8" stroke="currentColor"/>'
        '<text x="{3:.1f}" y="{4:.1f}">{5}</text>'
    ).format(y, end, y - 4, end + 8, y + 4, f"{length_m:,g}{unit}")
