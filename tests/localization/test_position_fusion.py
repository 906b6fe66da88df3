"""Positions and headings against scenes whose answer is known."""

import numpy as np
import pytest

from vpr_dhe.geography.plane import Plane
from vpr_dhe.geography.wgs84 import earth_centred, metres_per_degree
from vpr_dhe.localization.position_fusion import fuse_positions, turn_deg
from vpr_dhe.records import (
    RECONSTRUCTION,
    Cameras,
    GeoPosition,
    Intrinsics,
    MetricPosition,
    Position,
    PositionEstimate,
    RankedMatch,
    Verification,
)
from vpr_dhe.synthetic_town.camera import Camera

WRONG = [8, 7, 7, 6, 6, 6, 5, 5, 5, 4, 4, 4]
FAR = [MetricPosition(5000.0 + 300.0 * number, -900.0) for number in range(len(WRONG))]


def fused(
    inliers: list[int],
    positions: list[Position | None],
    homographies=None,
    heading_deg: float | None = None,
    cameras: Cameras | None = None,
) -> PositionEstimate | None:
    matches = []
    for place, (number, position) in enumerate(zip(inliers, positions, strict=True)):
        points = np.zeros((number, 2))
        homography = None if homographies is None else homographies[place]
        verification = Verification(homography, float(number), points, points)
        matches.append(
            RankedMatch(place + 1, f"{place}.jpg", 0.5, float(number), verification, position, heading_deg=heading_deg)
        )
    return fuse_positions(matches, cameras=cameras)


def test_equal_matches_give_their_mean_and_scatter():
    corners = [MetricPosition(x, y) for x in (100.0, 108.0) for y in (50.0, 54.0)]
    estimate = fused([60] * 4 + WRONG, [*corners, *FAR])
    assert estimate is not None
    assert estimate.position == MetricPosition(104.0, 52.0)
    assert estimate.matches == 4
    # Squares that sum to 4 x 16 and 4 x 4, and one more of 25^2 / 4 along each axis; the mean has taken one of five.
    np.testing.assert_allclose(estimate.covariance_m2, np.diag([4 * 16 + 156.25, 4 * 4 + 156.25]) / 4)
    assert estimate.semi_axes_m == pytest.approx((55.0625**0.5, 43.0625**0.5))
    assert estimate.orientation_deg == pytest.approx(90.0)


def test_the_ellipse_points_along_the_street():
    street = [MetricPosition(10.0 * k * np.sin(np.radians(30)), 10.0 * k * np.cos(np.radians(30))) for k in range(3)]
    estimate = fused([50] * 3 + WRONG, [*street, *FAR])
    assert estimate is not None
    assert estimate.orientation_deg == pytest.approx(30.0)


def test_a_strong_match_elsewhere_moves_nothing():
    here = [MetricPosition(0.0, 0.0), MetricPosition(6.0, 0.0), MetricPosition(3.0, 3.0)]
    estimate = fused([40, 40, 40, 42, *WRONG], [*here, MetricPosition(900.0, 0.0), *FAR])
    assert estimate is not None
    assert isinstance(estimate.position, MetricPosition)
    assert (estimate.position.x_m, estimate.position.y_m) == pytest.approx((3.0, 1.0))
    assert estimate.matches == 3


def test_without_a_unit_there_is_no_estimate():
    world = [MetricPosition(float(x), 0.0, RECONSTRUCTION) for x in range(1 + len(WRONG))]
    assert fused([90, *WRONG], world) is None


def test_one_match_is_as_sure_as_the_radius():
    estimate = fused([90, *WRONG], [MetricPosition(1.0, 2.0, "UTM 31U"), *FAR])
    assert estimate is not None
    assert estimate.position == MetricPosition(1.0, 2.0, "UTM 31U")
    np.testing.assert_allclose(estimate.semi_axes_m, 12.5)
    # Where none stands out, the best stands alone.
    alone = fused(WRONG, list(FAR))
    assert alone is not None
    assert (alone.position, alone.matches) == (FAR[0], 1)


def test_without_inliers_or_positions_there_is_no_estimate():
    assert fused([0, 0], [FAR[0], FAR[1]]) is None
    assert fused([40, 5, 5], [None, FAR[1], FAR[2]]) is None
    assert fused([], []) is None


def test_degrees_are_fused_on_the_ellipsoid():
    spots = [GeoPosition(49.2300, 179.9999), GeoPosition(49.2301, -179.9999)]
    estimate = fused([70, 70, *WRONG], [*spots, *[GeoPosition(10.0, 10.0 + n) for n in range(len(WRONG))]])
    assert estimate is not None
    at = estimate.position
    assert isinstance(at, GeoPosition)
    assert at.latitude_deg == pytest.approx(49.23005, abs=1e-7)
    assert abs(at.longitude_deg) == pytest.approx(180.0)
    assert estimate.matches == 2


def test_matches_on_both_sides_of_a_zone_border_are_fused():
    """Both are 7.5 m from the border, along 49 N at 6 E."""
    spots = [MetricPosition(719406.21, 5431792.57, "UTM 31U"), MetricPosition(280593.79, 5431792.57, "UTM 32U")]
    estimate = fused([70, 70, *WRONG], [*spots, *[MetricPosition(5e5 + n, 1e6, "UTM 31U") for n in range(len(WRONG))]])
    assert estimate is not None
    assert estimate.matches == 2
    assert isinstance(estimate.position, MetricPosition)
    assert estimate.position.reference == "UTM 31U"
    assert estimate.position.x_m == pytest.approx(719413.71, abs=0.02)


def test_a_plane_measures_as_space_does():
    spots = [GeoPosition(60.0, 10.0), GeoPosition(60.001, 10.002)]
    plane = Plane.around(spots)
    metres = plane.metres([*spots, None])
    chord = np.linalg.norm(np.subtract(*earth_centred(spots)))
    assert np.linalg.norm(metres[1] - metres[0]) == pytest.approx(chord, rel=1e-4)
    assert np.isnan(metres[2]).all()
    back = plane.position(*metres[0].tolist())
    assert isinstance(back, GeoPosition)
    assert (back.latitude_deg, back.longitude_deg) == pytest.approx((60.0, 10.0))
    # WGS84 at 45 degrees: 78.847 km and 111.132 km (Snyder 1987, table 9).
    np.testing.assert_allclose(metres_per_degree(45.0), (78_847, 111_132), rtol=1e-4)


def rotation_homography(query: Camera, candidate: Camera) -> np.ndarray:
    """What a camera that only turns makes of the pixels: K' R' R^T K^-1."""
    turn = candidate.rotation @ query.rotation.T
    return candidate.intrinsics @ turn @ np.linalg.inv(query.intrinsics)


def intrinsics_of(camera: Camera) -> Intrinsics:
    matrix = camera.intrinsics
    return Intrinsics(*(float(matrix[place]) for place in ((0, 0), (1, 1), (0, 2), (1, 2))))


@pytest.mark.parametrize(("query_deg", "candidate_deg"), [(20.0, 0.0), (350.0, 15.0), (100.0, 130.0), (0.0, 0.0)])
def test_a_turn_is_read_from_the_homography(query_deg, candidate_deg):
    query = Camera(0.0, 0.0, heading_deg=query_deg, focal_px=300.0)
    candidate = Camera(0.0, 0.0, heading_deg=candidate_deg)
    cameras = Cameras(intrinsics_of(query), intrinsics_of(candidate))
    homography = rotation_homography(query, candidate)
    expected = (query_deg - candidate_deg + 180) % 360 - 180
    for factor in (1.0, -0.3):
        assert turn_deg(factor * homography, cameras) == pytest.approx(expected, abs=1e-6)
    estimate = fused(
        [80, 80, *WRONG],
        [FAR[0], FAR[0], *FAR],
        [homography / homography[2, 2]] * (2 + len(WRONG)),
        heading_deg=candidate_deg,
        cameras=cameras,
    )
    assert estimate is not None
    assert estimate.heading_deg is not None
    assert (estimate.heading_deg - query_deg + 180) % 360 - 180 == pytest.approx(0.0, abs=1e-6)


def test_no_heading_without_cameras_or_headings():
    with_camera = Cameras(Intrinsics(100.0, 100.0, 50.0, 50.0), Intrinsics(100.0, 100.0, 50.0, 50.0))
    homographies = [np.eye(3)] * (1 + len(WRONG))
    positions: list[Position | None] = [FAR[0], *FAR]
    for heading_deg, cameras in ((10.0, None), (None, with_camera)):
        estimate = fused([80, *WRONG], positions, homographies, heading_deg, cameras)
        assert estimate is not None
        assert estimate.heading_deg is None


def test_the_best_match_counts_alone_if_those_that_stand_out_have_no_position():
    best = MetricPosition(5.0, 6.0)
    inliers = [7, 60, 7, 6, 6, 6, 5, 5, 5, 4, 4, 4]
    estimate = fused(inliers, [best, None, *[MetricPosition(900.0, 900.0)] * 10])
    assert estimate is not None
    assert (estimate.position, estimate.matches) == (best, 1)
