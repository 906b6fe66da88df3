"""Labels of sky: what is smooth, light and reaches the upper border, and not what it hides behind or lies below."""

import cv2
import numpy as np
import pytest

from vpr_dhe.records import Grid
from vpr_dhe.training.local_head.sky import sky_cells, with_clouds

GRID = Grid(20, 20)
CLOUDS = cv2.resize(np.random.default_rng(0).uniform(150, 240, (5, 7)).astype(np.float32), (320, 160), interpolation=2)


def scene(upper):
    """Bricks, with other pixels in the upper half."""
    random = np.random.default_rng(1)
    image = np.kron(random.integers(0, 200, (40, 40, 3), np.uint8), np.ones((8, 8, 1), np.uint8))
    image[:160] = upper
    return image


def in_halves(image):
    """Shares of sky in the upper and the lower half."""
    mask = sky_cells(image, GRID).reshape(GRID)
    return float(mask[:10].mean()), float(mask[10:].mean())


@pytest.mark.parametrize("upper", [(120, 160, 220), (230, 232, 235), CLOUDS[..., None] * (0.8, 0.9, 1.0)])
def test_blue_grey_and_cloudy_sky(upper):
    high, low = in_halves(scene(upper))
    assert (high > 0.85, low) == (True, 0.0)


@pytest.mark.parametrize("upper", [(200, 150, 110), (20, 22, 30)])
def test_warm_walls_and_the_night_are_none(upper):
    assert in_halves(scene(upper)) == (0.0, 0.0)


def test_a_light_wall_that_does_not_reach_the_border_is_none():
    image = scene((200, 150, 110))
    image[200:300, 40:280] = (225, 228, 232)
    assert in_halves(image) == (0.0, 0.0)


def test_other_clouds_hide_the_sky_alone():
    image = scene((120, 160, 220))
    clouded = with_clouds(image, np.random.default_rng(2))
    changed = np.abs(clouded.astype(int) - image).max(axis=2) > 8
    assert (changed[:140].mean() > 0.9, changed[170:].any()) == (True, False)
    assert clouded[:140].astype(float).std(axis=(0, 1)).min() > 3


def test_a_scene_without_sky_stays_as_it_is():
    image = scene((20, 22, 30))
    assert np.array_equal(with_clouds(image, np.random.default_rng(2)), image)
