"""What the benchmark of two sensors compares with is right: its crops, and the homography that it states of them."""

import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from vpr_dhe.datasets.pairs.base import HomographyPair
from vpr_dhe.images.loading import image_size

sys.path.append(str(Path(__file__).parents[2] / "benchmarks"))
import multimodal


def textured(seed: int = 0) -> np.ndarray:
    coarse = np.random.default_rng(seed).integers(0, 256, (12, 16, 3), np.uint8)
    return cv2.resize(coarse, (320, 240), interpolation=cv2.INTER_CUBIC)


@pytest.mark.parametrize("shift", [0.0, 0.05, 0.1])
def test_the_stated_homography_lays_one_crop_on_the_other(shift):
    image = textured()
    turned = np.array([[0.98, -0.17, 30.0], [0.17, 0.98, -20.0], [0.0, 0.0, 1.0]])
    pair = HomographyPair(
        "a pair", "", lambda: image, lambda: cv2.warpPerspective(image, turned, (320, 240)).astype(np.uint8), turned
    )
    found = multimodal.shifted(pair, shift, np.random.default_rng(1))
    assert found.image_a.shape == found.image_b.shape
    size = image_size(found.image_a)
    laid = cv2.warpPerspective(found.image_a, found.homography, size)
    covered = cv2.warpPerspective(np.full(found.image_a.shape[:2], 255, np.uint8), found.homography, size) == 255
    assert np.abs(laid[covered].astype(int) - found.image_b[covered]).mean() < 3
    assert np.linalg.norm(found.homography[:2, 2]) == pytest.approx(shift * max(size), rel=0.1, abs=1)


def test_the_largest_rectangle_holds_nothing_that_is_not_shown():
    shown = np.ones((90, 120), bool)
    shown[:, :30] = False
    left, top, width, height = multimodal.largest_rectangle(shown)
    assert shown[top : top + height, left : left + width].all()
    assert (width, height) == (90, 67)
    with pytest.raises(ValueError, match="hardly anything in common"):
        multimodal.largest_rectangle(np.zeros((90, 120), bool))
