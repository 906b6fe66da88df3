"""Positions of queries in the formats of maps and trajectories: GeoJSON, GPX and TUM.

Sources: RFC 7946 (GeoJSON); GPX 1.1 schema, https://www.topografix.com/GPX/1/1/; Sturm et al., "A benchmark for the
evaluation of RGB-D SLAM systems", IROS 2012, and https://cvg.cit.tum.de/data/datasets/rgbd-dataset/file_formats (TUM).
"""

import json
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any
from xml.sax.saxutils import escape

from vpr_dhe.errors import BadInputError
from vpr_dhe.geography.coordinates import coordinates_of
from vpr_dhe.geography.distance import EARTH, RADIUS_M, apart
from vpr_dhe.geography.plane import Plane
from vpr_dhe.geography.utm import own_zone
from vpr_dhe.index.place_index import PlaceIndex
from vpr_dhe.localization.confidence import confidence_of
from vpr_dhe.recordings.gpx import iso_time
from vpr_dhe.records import RECONSTRUCTION, GeoPosition, Position, PositionEstimate
from vpr_dhe.report.tables.answers import Answer, AnswerSheet
from vpr_dhe.report.tables.text import seconds_text


@dataclass(frozen=True)
class QueryPosition:
    """Position of the camera at a query.

    Args:
        position: position in the reference of the index.
        heading_deg: viewing direction, clockwise from north, if known.
        estimate: source estimate; None for the position of an indexed image.
    """

    position: Position
    heading_deg: float | None = None
    estimate: PositionEstimate | None = None


def query_position(answer: Answer) -> QueryPosition | None:
    """Position of a query: its estimate, else the position of the best match; None if the place is unknown.

    In a sequence, the place is that of the belief. An estimate more than 25 m from the place is not used, because
    probability and heading are those of the place.
    """
    found = answer.localization
    if found is None or found.blank or found.known is False:
        return None
    own = None if found.estimate is None else _of_estimate(found.estimate)
    if answer.belief is not None:
        place = answer.belief.best and answer.belief.best.position
        own = own if place is not None else None
    else:
        place = found.matches[0].position if found.matches else None
    if own is None or place is None:
        return own if place is None else QueryPosition(place)
    distance_m = apart(own.position, place)
    return own if distance_m is not None and distance_m <= RADIUS_M else QueryPosition(place)


def _of_estimate(estimate: PositionEstimate) -> QueryPosition:
    return QueryPosition(estimate.position, estimate.heading_deg, estimate)


def yaw_rad(heading_deg: float) -> float:
    """Angle from east, counterclockwise, of a heading clockwise from north, in radians from -pi to pi."""
    return math.remainder(math.radians(90 - heading_deg), math.tau)


@dataclass(frozen=True)
class PositionFormat:
    """Format of the positions of a run as one document.

    `lacks` returns the reason for leaving out a query, or None.
    """

    document: Callable[[AnswerSheet], str]
    lacks: Callable[[Answer], str | None]


def require_positions(index: PlaceIndex, format: str, *, timed: bool) -> None:
    """Check that an index has the positions that a format needs, and its queries the times.

    Args:
        index: that the queries are localized in.
        format: name of a format; any format that is not of positions needs none.
        timed: whether queries have times.

    Raises:
        BadInputError: if positions or times are missing.
    """
    if format not in POSITION_FORMATS:
        return
    frames = index.snapshot.reference_frames - {RECONSTRUCTION}
    if format != "tum":
        if EARTH not in frames:
            raise BadInputError(
                f"--format {format} needs positions in degrees or UTM, and {index.folder} has none; use --format csv"
            )
    elif not timed:
        raise BadInputError("--format tum needs times; give those of a folder by --times, or use --format csv")
    elif not frames:
        raise BadInputError(
            f"no image of {index.folder} has a position in metres or degrees; use --format csv, or index the "
            "images with --positions"
        )
    elif len(frames) > 1:
        raise BadInputError(
            f"the positions of {index.folder} are in {len(frames)} frames that cannot be compared "
            f"({', '.join(sorted(frames))}); use --format csv"
        )


def _on_earth(answer: Answer) -> tuple[float, float] | None:
    """Latitude and longitude of a query in degrees, if they are known."""
    place = query_position(answer)
    found = coordinates_of(place and place.position)
    return None if found.latitude is None or found.longitude is None else (found.latitude, found.longitude)


def _lacks_degrees(answer: Answer) -> str | None:
    return None if _on_earth(answer) else "no position in degrees"


def _geojson(sheet: AnswerSheet) -> str:
    features = [
        {
            "type": "Feature",
            # Longitude first; seven digits are a centimetre.
            "geometry": {"type": "Point", "coordinates": [round(degrees[1], 7), round(degrees[0], 7)]},
            "properties": _properties(answer),
        }
        for answer in sheet.answers
        if (degrees := _on_earth(answer))
    ]
    return json.dumps({"type": "FeatureCollection", "features": features}, indent=2)


def _properties(answer: Answer) -> dict[str, Any]:
    place, found = query_position(answer), answer.localization
    assert place is not None, "only queries with a position are written"
    assert found is not None, "only queries with a position are written"
    best = found.matches[0] if found.matches else None
    believed = answer.belief and answer.belief.best
    estimate = place.estimate
    return {
        "query": answer.query,
        "timestamp_s": answer.timestamp_s,
        "image": believed.image if believed else best and best.image,
        "probability": believed.probability if believed else best and best.probability,
        "confidence": confidence_of(found),
        "inliers": None if best is None or best.skipped else best.inliers,
        "heading_deg": place.heading_deg,
        "semi_axes_m": None if estimate is None else list(estimate.semi_axes_m),
        "orientation_deg": None if estimate is None else estimate.orientation_deg,
    }


_GPX_HEADER = (
    '<?xml version="1.0" encoding="UTF-8"?>\n<gpx version="1.1" creator="vpr-dhe" '
    'xmlns="http://www.topografix.com/GPX/1/1">'
)


def _gpx(sheet: AnswerSheet) -> str:
    """GPX with a track of the queries that have times, and waypoints of the others.

    Points have only times that count from the Unix epoch.
    """
    timed = [answer for answer in sheet.answers if answer.timestamp_s is not None]
    others = [answer for answer in sheet.answers if answer.timestamp_s is None]
    track = [
        f"<trk><trkseg>{point}</trkseg></trk>"
        for point in ["\n".join(_points("trkpt", timed, with_times=sheet.unix_times))]
        if point
    ]
    return "\n".join([_GPX_HEADER, *_points("wpt", others, with_times=False), *track, "</gpx>"])


def _points(tag: str, answers: Sequence[Answer], *, with_times: bool) -> Iterator[str]:
    for answer in answers:
        if degrees := _on_earth(answer):
            # The schema requires the time before the name.
            time = (
                f"<time>{iso_time(answer.timestamp_s)}</time>" if with_times and answer.timestamp_s is not None else ""
            )
            at = f'lat="{degrees[0]:.7f}" lon="{degrees[1]:.7f}"'
            yield f"<{tag} {at}>{time}<name>{escape(answer.query)}</name></{tag}>"


def _lacks_pose(answer: Answer) -> str | None:
    if answer.timestamp_s is None:
        return "no time"
    return None if query_position(answer) else "no position"


_TUM_HEADER = "# timestamp tx ty tz qx qy qz qw"


def _tum(sheet: AnswerSheet) -> str:
    """Lines of `timestamp tx ty tz qx qy qz qw`: metres east and north, and a rotation about the vertical.

    The body's x axis is the viewing direction; the rotation is the identity where the heading is unknown.
    """
    timed = (answer for answer in sheet.answers if answer.timestamp_s is not None)
    placed = [(answer, place) for answer in timed if (place := query_position(answer))]
    if not placed:
        return _TUM_HEADER
    plane = _plane([place.position for _, place in placed])
    metres = plane.metres([place.position for _, place in placed]).tolist()
    lines = [
        f"{seconds_text(answer.timestamp_s)} {east:.4f} {north:.4f} 0 0 0 {_rotation(place.heading_deg)}"
        for (answer, place), (east, north) in zip(placed, metres, strict=True)
    ]
    return "\n".join([_TUM_HEADER, *lines])


def _plane(positions: Sequence[Position]) -> Plane:
    """Plane of the UTM zone if possible, so that runs can be compared, else of the first position."""
    first = positions[0]
    zone = own_zone(first) if isinstance(first, GeoPosition) else None
    return Plane(first, zone) if zone else Plane.around(positions, first)


def _rotation(heading_deg: float | None) -> str:
    """Last two numbers, z and w, of the quaternion of a heading."""
    half = 0.0 if heading_deg is None else yaw_rad(heading_deg) / 2
    return f"{math.sin(half):.6f} {math.cos(half):.6f}"


POSITION_FORMATS = {
    "geojson": PositionFormat(_geojson, _lacks_degrees),
    "gpx": PositionFormat(_gpx, _lacks_degrees),
    "tum": PositionFormat(_tum, _lacks_pose),
}
