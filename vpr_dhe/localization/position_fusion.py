"""Fusion of the positions of verified matches: a position with its uncertainty, and a heading."""

import math
from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float64

from vpr_dhe.geography.distance import RADIUS_M, reference_frame_of
from vpr_dhe.geography.plane import Plane
from vpr_dhe.localization.robust_scores import contrasts
from vpr_dhe.records import RECONSTRUCTION, Cameras, PositionEstimate, RankedMatch

# Robust standard deviations above the median; one wrong candidate in forty exceeds them by chance.
_MIN_CONTRAST = 2.0
_MAX_SHIFTS = 50


def fuse_positions(matches: Sequence[RankedMatch], *, cameras: Cameras | None = None) -> PositionEstimate | None:
    """Estimate where a photo was taken from its candidates, best first.

    A candidate's weight is the excess of its contrast over 2; if no candidate exceeds that, the best one counts alone.
    The position is a weighted mean within 25 m, the radius within which images show the same place. Its centre is the
    mode found by flat-kernel mean shift from the position with the most weight around it, so of contradicting places
    the heaviest wins. The covariance is the scatter of the weighted positions plus a prior of (25 m)^2 / 4 per axis,
    the variance of a uniform disc of that radius, divided by the effective number of matches.

    Returns None if nothing was verified, or the position of the best match is unknown or in a reconstruction, whose
    unit is unknown.

    Source: Cheng, "Mean shift, mode seeking, and clustering", IEEE T-PAMI 1995 (flat kernel).
    """
    weights = _weights(matches)
    if not weights.any() or matches[0].position is None or reference_frame_of(matches[0].position) == RECONSTRUCTION:
        return None
    usable = [row for row in np.flatnonzero(weights).tolist() if _comparable(matches[row], matches[0])]
    if not usable:  # those that stand out have no position that can be compared with the best one's
        usable, weights[0] = [0], 1.0
    weights = weights[usable]
    positions = [position for row in usable if (position := matches[row].position)]
    plane = Plane.around(positions, matches[0].position)
    points = plane.metres(positions)
    near = _around_mode(points, weights)
    weights, points = weights[near] / weights[near].sum(), points[near]
    centre = weights @ points
    apart = points - centre
    effective = 1 / float((weights**2).sum())
    scatter = (weights[:, None] * apart).T @ apart
    covariance = scatter + np.eye(2) * RADIUS_M**2 / 4 / effective
    used = [usable[row] for row in np.flatnonzero(near)]
    heading_deg = None if cameras is None else _heading_deg([matches[row] for row in used], weights, cameras)
    east_m, north_m = centre.tolist()
    return PositionEstimate(plane.position(east_m, north_m), covariance, len(used), heading_deg)


def _weights(matches: Sequence[RankedMatch]) -> Float64[np.ndarray, " matches"]:
    if not matches or matches[0].inliers == 0:
        return np.zeros(len(matches))
    # Skipped matches do not stand out, so that they have no weight.
    weights = np.maximum(contrasts(matches) - _MIN_CONTRAST, 0.0)
    if not weights.any():
        weights[0] = 1.0
    return weights


def _comparable(match: RankedMatch, best: RankedMatch) -> bool:
    return match.position is not None and reference_frame_of(match.position) == reference_frame_of(best.position)


def _around_mode(
    points: Float64[np.ndarray, "matches 2"], weights: Float64[np.ndarray, " matches"]
) -> Bool[np.ndarray, " matches"]:
    """Mask of the matches within the radius of the mode."""
    apart = np.linalg.norm(points[:, None] - points, axis=2)
    centre = points[np.argmax((apart <= RADIUS_M) @ weights)]
    near = np.linalg.norm(points - centre, axis=1) <= RADIUS_M
    for _ in range(_MAX_SHIFTS):
        centre = weights[near] @ points[near] / weights[near].sum()
        shifted = np.linalg.norm(points - centre, axis=1) <= RADIUS_M
        if not shifted.any() or np.array_equal(shifted, near):
            break
        near = shifted
    return near


def _heading_deg(
    matches: Sequence[RankedMatch], weights: Float64[np.ndarray, " matches"], cameras: Cameras
) -> float | None:
    """Weighted circular mean of the headings that the matches imply; None if no match implies one."""
    east, north = 0.0, 0.0
    for match, weight in zip(matches, weights.tolist(), strict=True):
        if match.homography is not None and match.heading_deg is not None:
            heading = math.radians(match.heading_deg + turn_deg(match.homography, cameras))
            east, north = east + weight * math.sin(heading), north + weight * math.cos(heading)
    return None if east == north == 0.0 else math.degrees(math.atan2(east, north)) % 360


def turn_deg(homography: Float64[np.ndarray, "3 3"], cameras: Cameras) -> float:
    """Angle from the candidate's viewing direction to the query's, in degrees: clockwise, seen from above.

    K_database^-1 H K_query maps directions of the query's camera (x right, y down, z ahead) to those of the
    candidate's. It is a rotation if the camera only turned or the scene is far away; otherwise the nearest rotation is
    used, which the translation between the cameras biases. The angle is the azimuth, in the candidate's camera, of the
    query's optical axis. The candidate's camera is assumed to be level.

    Source: Hartley and Zisserman, Multiple View Geometry, 2nd edition, section 8.4.2.
    """
    directions = np.linalg.inv(cameras.database.matrix) @ homography @ cameras.query.matrix
    # A homography is known up to scale and sign; a rotation has determinant 1.
    left, _, right = np.linalg.svd(directions * np.sign(np.linalg.det(directions)))
    to_right, _, ahead = (left @ right)[:, 2].tolist()
    return math.degrees(math.atan2(to_right, ahead))
