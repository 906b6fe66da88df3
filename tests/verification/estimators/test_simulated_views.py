"""Simulated views: where their pixels come from, and matches across viewpoints that SIFT does not bear."""

import cv2
import numpy as np
import pytest
import torch

from vpr_dhe.features.keypoints import detect_and_extract, match_keypoints
from vpr_dhe.geometry.homography import reprojection_errors
from vpr_dhe.images.loading import image_size
from vpr_dhe.synthetic_town.town import SyntheticTown
from vpr_dhe.verification.estimators.asift.simulated_views import (
    TILTS,
    detect_in_views,
    match_views,
    simulate_view,
    simulate_views,
)


@pytest.fixture(scope="module")
def photo() -> np.ndarray:
    town = SyntheticTown(seed=5, streets=2)
    return town.render(town.database_cameras()[1])


def squeezed(photo: np.ndarray, factor: float) -> tuple[np.ndarray, np.ndarray]:
    width, height = image_size(photo)
    matrix = np.array([[1.0, 0.3, 0], [0, 1 / factor, 0.4 * height], [0, 0, 1]])
    blurred = cv2.GaussianBlur(photo, (0, 0), sigmaX=0.01, sigmaY=0.5 * factor)
    return cv2.warpPerspective(blurred, matrix, (width + 60, height)), matrix


@pytest.mark.parametrize(("tilt", "degrees"), [(1.0, 0.0), (2.0, 40.0), (4.0, 110.0)])
def test_a_view_shows_a_spot_where_its_homography_says(tilt, degrees):
    image = np.zeros((90, 130, 3), np.uint8)
    cv2.circle(image, (80, 35), 8, (255, 255, 255), -1)
    view = simulate_view(image, tilt, degrees)
    rows, columns = np.nonzero(view.pixels[..., 0] > 100)
    x, y, scale = view.from_image @ [80, 35, 1]
    assert np.allclose([columns.mean(), rows.mean()], [x / scale, y / scale], atol=0.5)
    assert abs(np.linalg.det(view.from_image)) == pytest.approx(1 / tilt)


def test_masks_leave_out_what_the_image_does_not_show():
    for view in simulate_views(np.full((60, 80, 3), 200, np.uint8)):
        if view.mask is not None:
            assert view.pixels[view.mask > 0].min() == 200
            assert 0.3 < (view.mask > 0).sum() / (60 * 80 * abs(np.linalg.det(view.from_image))) < 1


def test_views_have_more_matches_than_the_image_across_a_strong_tilt(photo):
    other, truth = squeezed(photo, 4.0)
    of_image = match_keypoints(detect_and_extract(photo), detect_and_extract(other))
    of_views = match_views(detect_in_views(photo), detect_in_views(other))

    def correct(matches):
        return reprojection_errors(torch.from_numpy(truth), matches.query_points, matches.candidate_points) < 3

    assert int(correct(of_views).sum()) > max(30, 3 * int(correct(of_image).sum()))
    assert float(correct(of_views).double().mean()) > 0.5


def test_a_place_is_matched_once(photo):
    keypoints = detect_in_views(photo)
    matches = match_views(keypoints, keypoints)
    pairs = torch.cat([matches.query_points, matches.candidate_points], dim=1)
    assert len(torch.unique((pairs / 2).round(), dim=0)) == len(pairs)
    assert len(TILTS) == 3


def test_images_without_keypoints_have_no_matches(photo):
    flat = detect_in_views(np.full((60, 80, 3), 90, np.uint8))
    assert len(match_views(flat, detect_in_views(photo)).similarity) == 0
    assert len(match_views(detect_in_views(photo), flat).similarity) == 0
