"""The offline extractor: its descriptors against a slow oracle, and what may not change them."""

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from vpr_dhe.features.dense_sift import rootsift_at, rootsift_grid
from vpr_dhe.features.extractor import load_extractor
from vpr_dhe.features.sift_vlad import SiftVladExtractor
from vpr_dhe.features.vlad import Vocabulary, banded_vlad, local_descriptors, nearest_words
from vpr_dhe.synthetic_town.town import SyntheticTown


@pytest.fixture(scope="module")
def extractor() -> SiftVladExtractor:
    extractor = load_extractor("sift-vlad")
    assert isinstance(extractor, SiftVladExtractor)
    return extractor


@pytest.fixture(scope="module")
def views() -> list[np.ndarray]:
    town = SyntheticTown(seed=3, streets=2)
    return [town.render(camera) for camera in town.database_cameras()[:6]]


def grey(image: np.ndarray) -> np.ndarray:
    return cv2.cvtColor(image, cv2.COLOR_RGB2GRAY).astype(np.float32) / np.float32(255)


def slow_histogram(image: np.ndarray, x: float, y: float, bin_px: float) -> np.ndarray:
    """Sum every pixel's gradient into 4 x 4 x 8 bins, by its definition."""
    height, width = image.shape
    padded = np.pad(image.astype(np.float64), 1, mode="edge")
    dx, dy = (padded[1:-1, 2:] - padded[1:-1, :-2]) / 2, (padded[2:, 1:-1] - padded[:-2, 1:-1]) / 2
    histogram = np.zeros((4, 4, 8))
    for row in range(height):
        for column in range(width):
            magnitude = np.hypot(dx[row, column], dy[row, column])
            position = np.arctan2(dy[row, column], dx[row, column]) % (2 * np.pi) * 8 / (2 * np.pi)
            for i in range(4):
                for j in range(4):
                    away_y = abs(row - round(y + (i - 1.5) * bin_px)) / bin_px
                    away_x = abs(column - round(x + (j - 1.5) * bin_px)) / bin_px
                    weight = max(0, 1 - away_y) * max(0, 1 - away_x) / bin_px**2 * magnitude
                    histogram[i, j, int(position) % 8] += weight * (1 - position % 1)
                    histogram[i, j, (int(position) + 1) % 8] += weight * (position % 1)
    return histogram.ravel()


def test_rootsift_agrees_with_the_slow_histogram(views):
    image = cv2.resize(grey(views[0]), (48, 40), interpolation=cv2.INTER_AREA)
    smooth = cv2.GaussianBlur(image, (0, 0), 8.0 / 6.0)
    found, energy = rootsift_at(image, np.array([[24.0, 20.0]]), 8.0)
    histogram = slow_histogram(smooth, 24.0, 20.0, 8.0)
    clipped = np.minimum(histogram, 0.2 * np.linalg.norm(histogram))
    np.testing.assert_allclose(found[0], np.sqrt(clipped / clipped.sum()), atol=2e-3)
    assert energy[0] == pytest.approx(np.linalg.norm(histogram), rel=1e-3)


def test_a_grid_agrees_with_points(views):
    image = cv2.resize(grey(views[1]), (64, 48), interpolation=cv2.INTER_AREA)
    grid = rootsift_grid(image, 4.0, 4.0 / 6.0)
    # Bins are centred at 2, 6, 10, ...; the first descriptor spans four of them.
    x, y = np.meshgrid(8.0 + 4 * np.arange(13), 8.0 + 4 * np.arange(9))
    points, energy = rootsift_at(image, np.stack([x.ravel(), y.ravel()], axis=1), 4.0)
    np.testing.assert_allclose(grid.rootsift, points, atol=1e-4)
    np.testing.assert_allclose(grid.energy, energy, rtol=1e-4, atol=1e-6)


@given(st.floats(0.3, 1.0), st.floats(0.0, 0.2))
@settings(max_examples=10)
def test_rootsift_ignores_brightness_and_contrast(views, gain, offset):
    image = grey(views[2])
    points = np.array([[100.0, 100.0], [200.0, 120.0]])
    plain, _ = rootsift_at(image, points, 8.0)
    changed, _ = rootsift_at(np.float32(gain) * image + np.float32(offset), points, 8.0)
    np.testing.assert_allclose(changed, plain, atol=2e-3)


def test_vlad_blocks_have_equal_norm_and_words_are_the_nearest():
    rng = np.random.default_rng(0)
    image = cv2.GaussianBlur(rng.random((240, 320), np.float32), (0, 0), 2)
    local = local_descriptors(image)
    centres = rng.normal(size=(5, 16)).astype(np.float32)
    whitening = rng.normal(size=(128, 16)).astype(np.float32)
    vocabulary = Vocabulary(local.rootsift.mean(axis=0), whitening, centres)
    vlad = banded_vlad(local, vocabulary)
    assert np.linalg.norm(vlad) == pytest.approx(1, abs=1e-5)
    norms = np.linalg.norm(vlad.reshape(10, 16), axis=1)
    np.testing.assert_allclose(norms[norms > 1e-6], norms.max(), rtol=1e-4)
    points = (local.rootsift - vocabulary.mean) @ whitening
    distances = np.linalg.norm(points[:, None] - centres[None], axis=2)
    np.testing.assert_array_equal(nearest_words(points, centres), distances.argmin(axis=1))


def test_features_have_the_documented_shapes_and_norms(extractor, views):
    spec = extractor.spec
    assert (spec.dimension, spec.local_dimension, tuple(spec.grid), spec.unit_norm) == (384, 128, (24, 24), True)
    for feature in extractor.extract(views):
        assert feature.global_descriptor.shape == (384,)
        assert feature.local_map.shape == (576, 128)
        torch.testing.assert_close(feature.global_descriptor.norm(), torch.tensor(1.0))
        torch.testing.assert_close(feature.local_map.norm(dim=1), torch.ones(576))


def test_a_batch_equals_its_members(extractor, views):
    together = extractor.extract(views)
    for view, feature in zip(views, together, strict=True):
        alone = extractor.extract([view])[0]
        assert torch.equal(alone.global_descriptor, feature.global_descriptor)
        assert torch.equal(alone.local_map, feature.local_map)


def test_a_darker_copy_is_nearer_than_another_view(extractor, views):
    darker = (views[0] * 0.6).astype(np.uint8)
    first, second, other = (f.global_descriptor for f in extractor.extract([views[0], darker, views[3]]))
    assert float(first @ second) > 0.9
    assert float(first @ second) > float(first @ other) + 0.3


@pytest.mark.parametrize("shape", [(16, 16), (16, 900), (900, 16), (1500, 2000)])
@pytest.mark.parametrize("value", [0, 255])
def test_flat_images_of_any_shape_are_finite(extractor, shape, value):
    feature = extractor.extract([np.full((*shape, 3), value, np.uint8)])[0]
    assert torch.isfinite(feature.global_descriptor).all()
    assert torch.isfinite(feature.local_map).all()
