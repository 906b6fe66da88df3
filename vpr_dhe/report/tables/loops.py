"""Loop closures line by line: JSON lines, CSV, hloc pairs, and edges of a pose graph."""

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from vpr_dhe.geography.distance import RADIUS_M
from vpr_dhe.records import RECONSTRUCTION, ImageRecord, MetricPosition
from vpr_dhe.report.tables.pair_lists import name_with_blanks
from vpr_dhe.report.tables.positions import yaw_rad
from vpr_dhe.report.tables.text import csv_line, seconds_text
from vpr_dhe.sequences.loops import Loop

_COLUMNS = ("query", "timestamp_s", "image", "image_timestamp_s", "probability", "similarity", "score", "inliers")


@dataclass(frozen=True)
class LoopFormat:
    """Format of loop closures: an optional header, and one line each.

    `unfit` returns the first frame name that the format cannot represent, or None; `fault` is the message for it, with
    `{name}`, unless the reason is whitespace.
    """

    header: str | None
    line: Callable[[Loop], str]
    unfit: Callable[..., str | None] = lambda *_: None
    fault: str | None = None


def _json_line(loop: Loop) -> str:
    match = loop.match
    document = {
        "query": loop.query,
        "timestamp_s": loop.timestamp_s,
        "image": match.image,
        "image_timestamp_s": loop.match_timestamp_s,
        "probability": loop.probability,
        "similarity": match.similarity,
        "score": match.score,
        "inliers": match.inliers,
        "homography": None if match.homography is None else match.homography.tolist(),
    }
    return json.dumps(document)


def _csv_line(loop: Loop) -> str:
    match = loop.match
    names = (loop.query, seconds_text(loop.timestamp_s), match.image, seconds_text(loop.match_timestamp_s))
    numbers = (f"{loop.probability:.6f}", f"{match.similarity:.6f}", f"{match.score:g}", match.inliers)
    return csv_line((*names, *numbers))


def _pair(loop: Loop) -> str:
    return f"{loop.query} {loop.match.image}"


LOOP_FORMATS = {
    "jsonl": LoopFormat(None, _json_line),
    "csv": LoopFormat(",".join(_COLUMNS), _csv_line),
    "hloc": LoopFormat(None, _pair, name_with_blanks),
}

# Variance per axis of a uniform disc: matched images lie within this radius of each other.
_VARIANCE_M2 = RADIUS_M**2 / 4
# A homography with many inliers needs views of largely one scene.
_TURN_SIGMA_RAD = math.radians(15)
_NO_POSE = (
    "--format g2o needs frames with positions in metres and headings, and {name!r} has none; give them by --times, or "
    "use --format csv"
)


def g2o_format(records: Sequence[ImageRecord]) -> LoopFormat:
    """Pose graph of g2o: a vertex per frame with a metric position and a heading, and an edge per loop.

    The id of a vertex is the number of its frame in `records`. Its pose is (x, y) in metres, and the angle of the
    viewing direction, counterclockwise from east. An edge states that both frames have the same place and viewing
    direction: the relative pose is 0, with a standard deviation of 12.5 m along each axis and 15 degrees. It does not
    use the positions of the frames, because it is to correct their drift.

    Source: https://github.com/RainerKuemmerle/g2o/wiki/File-Format-SLAM-2D.
    """
    poses: dict[str, int] = {}
    lines = ["# VERTEX_SE2 id x_m y_m yaw_rad; EDGE_SE2 from to dx_m dy_m dyaw_rad, information by rows"]
    for number, record in enumerate(records):
        if (pose := _pose(record)) is not None:
            poses[record.path] = number
            lines.append(f"VERTEX_SE2 {number} {pose[0]:.4f} {pose[1]:.4f} {pose[2]:.6f}")
    metres, turn = 1 / _VARIANCE_M2, 1 / _TURN_SIGMA_RAD**2

    def edge(loop: Loop) -> str:
        # Upper triangle of the information matrix: xx, xy, x yaw, yy, y yaw, yaw yaw.
        information = f"{metres:g} 0 0 {metres:g} 0 {turn:g}"
        return f"EDGE_SE2 {poses[loop.match.image]} {poses[loop.query]} 0 0 0 {information}"

    return LoopFormat("\n".join(lines), edge, lambda *names: _without_pose(poses, names), _NO_POSE)


def _without_pose(poses: Mapping[str, int], names: Sequence[str]) -> str | None:
    return next((name for name in names if name not in poses), None)


def _pose(record: ImageRecord) -> tuple[float, float, float] | None:
    place = record.position
    if not isinstance(place, MetricPosition) or place.reference == RECONSTRUCTION or record.heading_deg is None:
        return None
    return place.x_m, place.y_m, yaw_rad(record.heading_deg)
