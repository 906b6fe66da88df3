"""Sparse matches and alignment against warps that are known."""

import cv2
import numpy as np
import pytest
import torch

from vpr_dhe.features.keypoints import detect_and_extract, match_keypoints, match_rectified
from vpr_dhe.geometry.coordinates import corners
from vpr_dhe.geometry.homography import four_point_homography, mean_corner_error, reprojection_errors
from vpr_dhe.records import Size
from vpr_dhe.synthetic_town.town import SyntheticTown
from vpr_dhe.verification.alignment import align_keypoints
from vpr_dhe.verification.build import build_estimator
from vpr_dhe.verification.estimators.registry import ESTIMATORS, Needs
from vpr_dhe.verification.verifier import Verifier

SIZE = Size(320, 240)


@pytest.fixture(scope="module")
def photo() -> np.ndarray:
    town = SyntheticTown(seed=5, streets=2)
    return town.render(town.database_cameras()[1])


def warped(photo: np.ndarray, seed: int) -> tuple[np.ndarray, torch.Tensor]:
    moves = torch.rand(4, 2, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) * 60 - 30
    truth = four_point_homography(corners(SIZE), corners(SIZE) + moves)
    return cv2.warpPerspective(photo, truth.numpy(), SIZE), truth


def test_matches_follow_the_warp(photo):
    other, truth = warped(photo, 1)
    matches = match_keypoints(detect_and_extract(photo), detect_and_extract(other))
    errors = reprojection_errors(truth, matches.query_points, matches.candidate_points)
    assert len(errors) > 60
    assert (errors < 2).double().mean() > 0.8


def test_rectified_matches_stay_within_their_radius(photo):
    other, truth = warped(photo, 2)
    matches = match_rectified(photo, other, detect_and_extract(other), truth.numpy(), 4.0)
    errors = reprojection_errors(truth, matches.query_points, matches.candidate_points)
    assert len(errors) > 60
    assert errors.max() < 4 * 2**0.5 + 0.1
    assert errors.median() < 0.5


@pytest.mark.parametrize("name", [name for name, spec in ESTIMATORS.items() if spec.needs is Needs.matches])
def test_every_estimator_aligns_a_warp_to_a_pixel(photo, name):
    other, truth = warped(photo, 3)
    found = align_keypoints(photo, other, Verifier(build_estimator(name)))
    assert found.homography is not None
    assert float(mean_corner_error(torch.from_numpy(found.homography), truth, corners(SIZE))) < 1.0
    assert found.inliers > 60


def test_images_without_texture_have_no_matches_and_no_homography():
    flat = np.full((100, 120, 3), 90, np.uint8)
    assert len(detect_and_extract(flat).points) == 0
    found = align_keypoints(flat, flat, Verifier(build_estimator("magsac")))
    assert (found.homography, found.inliers) == (None, 0)


def test_unrelated_images_are_not_aligned(photo):
    noise = np.random.default_rng(0).integers(0, 256, (240, 320, 3), np.uint8)
    other = SyntheticTown(seed=9, streets=2)
    for image in (noise, other.render(other.database_cameras()[10])):
        assert align_keypoints(photo, image, Verifier(build_estimator("magsac"))).homography is None
