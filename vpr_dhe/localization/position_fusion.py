"""From verified matches to where the photo was taken: a position with its uncertainty, and a heading."""

import math
from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float64

from vpr_dhe.geography.distance import RADIUS_M, plane_of
from vpr_dhe.geography.plane import Plane
from vpr_dhe.localization.contrast import contrasts
from vpr_dhe.records import RECONSTRUCTION, Cameras, ImageRecord, PositionEstimate, RankedMatch

# Candidates that stand out less than this, in robust standard deviations, say nothing: one wrong one in forty does.
_LEAST_CONTRAST = 2.0
_MOST_SHIFTS = 50


def fuse_positions(
    matches: Sequence[RankedMatch], records: Sequence[ImageRecord], *, cameras: Cameras | None = None
) -> PositionEstimate | None:
    """Estimate where a photo was taken from all candidates that were verified, best first, and what is known of each.

    Candidates weigh as far as they stand out of the list; where none does, the best stands alone. Of places that
    contradict each other the heaviest wins: the weighted mean is taken within 25 m, the radius up to which images show
    the same place, around the mode that mean shift climbs to from the spot with the most weight around it. The
    covariance is that of a spot like those of these matches: their unbiased scatter, joined by one observation more of
    what a single match says, which is a spot anywhere in that radius: a variance of a quarter of its square along each
    axis.

    Returns None where nothing was verified, or the position of the best match is unknown or of a reconstruction, in
    which nobody knows how long 25 m are.

    Source: Cheng, "Mean shift, mode seeking, and clustering", IEEE T-PAMI 1995 (flat kernel).
    """
    weights = _weights(matches)
    if not weights.any() or records[0].position is None or plane_of(records[0].position) == RECONSTRUCTION:
        return None
    usable = [place for place in np.flatnonzero(weights).tolist() if _comparable(records[place], records[0])]
    plane, weights = Plane(records[0].position), weights[usable]
    points = plane.metres([records[place].position for place in usable])
    near = _around_mode(points, weights)
    weights, points = weights[near] / weights[near].sum(), points[near]
    centre = weights @ points
    apart = points - centre
    effective = 1 / float((weights**2).sum())
    scatter = (weights[:, None] * apart).T @ apart
    covariance = scatter + np.eye(2) * RADIUS_M**2 / 4 / effective
    used = [usable[place] for place in np.flatnonzero(near)]
    heading_deg = None if cameras is None else _heading_deg(matches, records, used, weights, cameras)
    east_m, north_m = centre.tolist()
    return PositionEstimate(plane.position(east_m, north_m), covariance, len(used), heading_deg)


def _weights(matches: Sequence[RankedMatch]) -> Float64[np.ndarray, " matches"]:
    if not matches or matches[0].inliers == 0:
        return np.zeros(len(matches))
    weights = np.maximum(contrasts(matches) - _LEAST_CONTRAST, 0.0)
    if not weights.any():
        weights[0] = 1.0
    return weights


def _comparable(record: ImageRecord, best: ImageRecord) -> bool:
    return record.position is not None and plane_of(record.position) == plane_of(best.position)


def _around_mode(
    points: Float64[np.ndarray, "matches 2"], weights: Float64[np.ndarray, " matches"]
) -> Bool[np.ndarray, " matches"]:
    """Which matches lie within the radius of the mode."""
    apart = np.linalg.norm(points[:, None] - points, axis=2)
    centre = points[np.argmax((apart <= RADIUS_M) @ weights)]
    near = np.linalg.norm(points - centre, axis=1) <= RADIUS_M
    for _ in range(_MOST_SHIFTS):
        centre = weights[near] @ points[near] / weights[near].sum()
        shifted = np.linalg.norm(points - centre, axis=1) <= RADIUS_M
        if not shifted.any() or np.array_equal(shifted, near):
            break
        near = shifted
    return near


def _heading_deg(
    matches: Sequence[RankedMatch],
    records: Sequence[ImageRecord],
    used: Sequence[int],
    weights: Float64[np.ndarray, " used"],
    cameras: Cameras,
) -> float | None:
    """The weighted circular mean of what each match says of the heading; None where none says anything."""
    east, north = 0.0, 0.0
    for place, weight in zip(used, weights.tolist(), strict=True):
        homography, heading_deg = matches[place].homography, records[place].heading_deg
        if homography is not None and heading_deg is not None:
            heading = math.radians(heading_deg + turn_deg(homography, cameras))
            east, north = east + weight * math.sin(heading), north + weight * math.cos(heading)
    return None if east == north == 0.0 else math.degrees(math.atan2(east, north)) % 360


def turn_deg(homography: Float64[np.ndarray, "3 3"], cameras: Cameras) -> float:
    """How far the query's camera looked to the right of the candidate's, in degrees: clockwise, seen from above.

    K_database^-1 H K_query takes directions of the query's camera (x right, y down, z ahead) to those of the
    candidate's. It is a rotation where the camera only turned, or all is far away; otherwise the nearest rotation is
    taken, which the way between the cameras biases. Where the candidate's camera sees the query's straight ahead,
    left and right of its own, is the answer; that the candidate's camera is level is taken for granted.

    Source: Hartley and Zisserman, Multiple View Geometry, 2nd edition, section 8.4.2.
    """
    directions = np.linalg.inv(cameras.database.matrix) @ homography @ cameras.query.matrix
    # A homography is known up to a factor, the sign included; a rotation has determinant 1.
    left, _, right = np.linalg.svd(directions * np.sign(np.linalg.det(directions)))
    to_right, _, ahead = (left @ right)[:, 2].tolist()
    return math.degrees(math.atan2(to_right, ahead))
