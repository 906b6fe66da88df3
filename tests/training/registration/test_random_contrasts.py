"""Photos in random contrasts: other tones, the same edges."""

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vpr_dhe.training.registration.random_contrasts import as_another_sensor, in_random_contrast


def photo(seed: int = 0) -> np.ndarray:
    """Smooth and colourful."""
    small = np.random.default_rng(seed).integers(0, 256, (6, 8, 3), np.uint8)
    return cv2.resize(small, (80, 60), interpolation=cv2.INTER_CUBIC)


@settings(max_examples=30)
@given(seed=st.integers(0, 10**6))
def test_a_contrast_changes_no_geometry_and_keeps_something_to_see(seed):
    image = photo()
    shown = in_random_contrast(image, np.random.default_rng(seed))
    assert (shown.shape, shown.dtype) == (image.shape, np.uint8)
    assert np.ptp(shown.astype(int)) > 20
    assert np.array_equal(shown, in_random_contrast(image, np.random.default_rng(seed)))


def test_brightness_is_reversed_about_as_often_as_it_is_not():
    image = photo()
    grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY).ravel()
    shown = [in_random_contrast(image, np.random.default_rng(seed)) for seed in range(60)]
    correlations = [np.corrcoef(grey, cv2.cvtColor(one, cv2.COLOR_RGB2GRAY).ravel())[0, 1] for one in shown]
    assert 0.2 < np.mean(np.array(correlations) < -0.1) < 0.8
    assert 0.2 < np.mean(np.array(correlations) > 0.1) < 0.8


def test_edges_stay_where_they_are():
    """Left and right of a step between flat halves, every contrast is flat."""
    image = np.full((40, 40, 3), (40, 90, 60), np.uint8)
    image[:, 20:] = (200, 120, 30)
    for seed in range(30):
        shown = in_random_contrast(image, np.random.default_rng(seed)).astype(int)
        for half in (shown[5:-5, 5:14], shown[5:-5, 26:-5]):  # a blur reaches six pixels
            assert np.ptp(half.reshape(-1, 3), axis=0).max() <= 1


@pytest.mark.parametrize("value", [0, 128, 255])
def test_an_image_of_one_colour_stays_one(value):
    shown = in_random_contrast(np.full((16, 16, 3), value, np.uint8), np.random.default_rng(1))
    assert np.ptp(shown.reshape(-1, 3), axis=0).max() == 0


@settings(max_examples=30)
@given(seed=st.integers(0, 10**6))
def test_another_sensor_sees_the_same_shape_of_image_again_and_again(seed):
    image = photo()
    shown = as_another_sensor(image, np.random.default_rng(seed))
    assert (shown.shape, shown.dtype) == (image.shape, np.uint8)
    assert np.array_equal(shown, as_another_sensor(image, np.random.default_rng(seed)))


def test_another_sensor_keeps_the_place_of_a_step():
    """Wherever a step is to be seen at all, it is seen within the blur of three pixels of where it is."""
    image = np.full((60, 60, 3), (40, 90, 60), np.uint8)
    image[:, 30:] = (200, 120, 30)
    seen = 0
    for seed in range(40):
        shown = as_another_sensor(image, np.random.default_rng(seed)).astype(float).mean(axis=2)
        steps = np.abs(np.diff(shown, axis=1)).mean(axis=0)
        if steps.max() > 5:
            seen += 1
            assert abs(steps.argmax() - 29) <= 3
    assert seen > 25


def test_contrast_differs_between_parts_of_an_image_sometimes():
    """The grey levels of a photo and of what another sensor sees agree here and are reversed there."""
    image = photo()
    grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    opposed = 0
    for seed in range(120):
        shown = cv2.cvtColor(as_another_sensor(image, np.random.default_rng(seed)), cv2.COLOR_RGB2GRAY)
        tiles = [np.s_[y : y + 30, x : x + 40] for y in (0, 30) for x in (0, 40)]
        correlations = [
            np.corrcoef(grey[tile].ravel(), shown[tile].ravel() + 1e-6 * grey[tile].ravel())[0, 1] for tile in tiles
        ]
        opposed += min(correlations) < -0.3 and max(correlations) > 0.3
    assert opposed > 5
