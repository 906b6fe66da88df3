"""Pictures of matches: points where they belong, whatever sizes the images have."""

import numpy as np

from vpr_dhe.records import Verification
from vpr_dhe.report.pictures.drawing import draw_match


def test_inliers_and_outline_are_drawn_where_the_images_show_them():
    query, candidate = np.zeros((100, 200, 3), np.uint8), np.zeros((800, 400, 3), np.uint8)
    homography = np.diag([2.0, 2.0, 1.0])
    homography[:2, 2] = 0, 300
    points = np.array([[50.0, 50.0]])
    drawn = draw_match(query, candidate, Verification(homography, 1.0, points, points * 2 + [0, 300]), side_px=400)
    # Each has a longer side of 400 pixels: the query 400 x 200, the candidate 200 x 400 beside it.
    assert drawn.shape == (400, 400 + 12 + 200, 3)
    green = np.argwhere((drawn[..., 1] > 200) & (drawn[..., 0] < 100))
    assert np.abs(green - [100, 100]).sum(axis=1).min() <= 2
    assert np.abs(green - [200, 412 + 50]).sum(axis=1).min() <= 2
    orange = np.argwhere((drawn[..., 0] > 240) & (drawn[..., 2] < 60))
    assert np.abs(orange - [150, 412 + 100]).sum(axis=1).min() <= 2
    assert np.abs(orange - [250, 412 + 100]).sum(axis=1).min() <= 3


def test_a_strip_is_drawn_too():
    strip, square = np.zeros((16, 6000, 3), np.uint8), np.zeros((50, 50, 3), np.uint8)
    empty = np.empty((0, 2))
    assert draw_match(strip, square, Verification(None, 0.0, empty, empty), side_px=100).shape == (100, 212, 3)
