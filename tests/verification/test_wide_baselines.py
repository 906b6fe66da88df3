"""Methods of `align` for wide baselines: `asift`, the coarse stage of `ransac-flow`, and `auto`."""

import cv2
import numpy as np
import pytest
import torch

from vpr_dhe.errors import VerifierError
from vpr_dhe.features.keypoints import detect_and_extract
from vpr_dhe.geometry.coordinates import corners
from vpr_dhe.geometry.homography import mean_corner_error
from vpr_dhe.images.loading import image_size
from vpr_dhe.records import NOTHING_TO_MATCH, Size
from vpr_dhe.synthetic_town.town import SyntheticTown
from vpr_dhe.verification import auto_aligner
from vpr_dhe.verification.alignment import build_aligner, load_resources
from vpr_dhe.verification.auto_aligner import AutomaticAligner
from vpr_dhe.verification.estimators.base import Homographies, HomographyEstimator
from vpr_dhe.verification.estimators.resources import Resources
from vpr_dhe.verification.keypoint_refinement import count_agreeing

METHODS = ("asift", "ransac-flow", "auto")
# `auto` runs all others.
ALIGNERS = ("asift", "ransac-flow", pytest.param("auto", marks=pytest.mark.slow))


@pytest.fixture(scope="module")
def photos() -> list[np.ndarray]:
    town = SyntheticTown(seed=5, streets=2)
    return [town.render(town.database_cameras()[number]) for number in (1, 20)]


@pytest.fixture(scope="module")
def aligners():
    return {name: build_aligner(name) for name in METHODS}


def seen_obliquely(photo: np.ndarray, foreshortening: float = 0.62) -> tuple[np.ndarray, np.ndarray]:
    width, height = image_size(photo)
    before = np.array([[0, 0], [width - 1, 0], [width - 1, height - 1], [0, height - 1]], np.float32)
    after = before * np.float32([foreshortening, 1]) + np.float32([[20, 5], [0, 45], [0, -30], [20, 0]])
    truth = cv2.getPerspectiveTransform(before, after).astype(np.float64)
    return cv2.warpPerspective(cv2.GaussianBlur(photo, (0, 0), 0.7), truth, (width, height)), truth / truth[2, 2]


def error_px(homography: np.ndarray, truth: np.ndarray, size: Size) -> float:
    return float(mean_corner_error(torch.from_numpy(homography), torch.from_numpy(truth), corners(size)))


@pytest.mark.parametrize("name", ALIGNERS)
def test_an_oblique_view_is_aligned_without_weights(name, photos, aligners):
    other, truth = seen_obliquely(photos[0])
    found = aligners[name](photos[0], other)
    assert found.homography is not None
    assert error_px(found.homography, truth, image_size(photos[0])) < 2
    assert found.inliers >= 8
    if name == "ransac-flow":
        assert (found.details.name, found.details.method) == ("planes", None)
        assert found.details.value >= 1
    if name == "auto":
        assert found.details.name == "held_out_matches"
        assert found.details.method in {"magsac", "asift", "ransac-flow"}
        assert found.details.value >= 8


@pytest.mark.parametrize("name", ALIGNERS)
def test_images_of_nothing_in_common_are_a_failure(name, aligners):
    noise = np.random.default_rng(0).integers(0, 256, (2, 120, 160, 3), dtype=np.uint8)
    for image in (noise[1], np.full((120, 160, 3), 90, np.uint8)):
        found = aligners[name](noise[0], image)
        assert (found.homography, found.inliers, found.score) == (None, 0, 0)


@pytest.mark.slow
def test_auto_takes_cross_modal_where_no_keypoint_matches(photos, aligners):
    other, truth = seen_obliquely(photos[0], foreshortening=0.85)
    inverted = 255 - cv2.GaussianBlur(other, (0, 0), 4.0)
    found = aligners["auto"](photos[0], inverted)
    assert (found.details.name, found.details.method) == ("matching_cells", "cross-modal")
    assert error_px(found.homography, truth, image_size(photos[0])) < 0.05 * max(image_size(photos[0]))


class Knows(HomographyEstimator):
    """A network that answers with a given homography."""

    name = "knows"

    def __init__(self, homography: np.ndarray) -> None:
        self.homography = homography

    def estimate(self, query, candidates):
        return Homographies.joined([self.homography for _ in candidates])


@pytest.mark.slow
def test_auto_takes_the_homography_that_the_most_matches_held_out_agree_with(photos, monkeypatch):
    other, truth = seen_obliquely(photos[0])
    right, wrong = Knows(truth), Knows(np.array([[0.5, -0.5, 160], [0.5, 0.5, 0], [0, 0, 1]]))
    right.name, wrong.name = "right", "wrong"
    monkeypatch.setattr(auto_aligner, "_estimate_from_half", lambda *_: NOTHING_TO_MATCH)
    found = AutomaticAligner([wrong, right, wrong])(photos[0], other)
    assert found.details.method == "right"
    assert error_px(found.homography, truth, image_size(photos[0])) < 2


def test_hardly_any_match_agrees_with_a_wrong_homography(photos):
    other, truth = seen_obliquely(photos[0])
    keypoints = detect_and_extract(other)
    assert count_agreeing(photos[0], other, keypoints, truth) > 50
    shifted = np.array([[1.0, 0, 12], [0, 1, 9], [0, 0, 1]]) @ truth
    assert count_agreeing(photos[0], other, keypoints, shifted) < 8
    mirrored = truth @ np.array([[-1.0, 0, 100], [0, 1, 0], [0, 0, 1]])
    assert count_agreeing(photos[0], other, keypoints, mirrored) == 0


def test_auto_refuses_what_it_has_no_use_for():
    with pytest.raises(VerifierError, match="leave them out"):
        build_aligner("auto", load_resources("sift-vlad"))
    with pytest.raises(VerifierError, match="--max-seconds"):
        build_aligner("auto", Resources(max_seconds=3.0))
