"""Learning on a pair: a known warp is found, in either order of brightness, and time is kept."""

import itertools
from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch

from vpr_dhe.evaluation.alignment_metrics import corner_error_px
from vpr_dhe.images.loading import image_size
from vpr_dhe.records import Frame, Size
from vpr_dhe.verification.estimators.base import Homographies, HomographyEstimator, View
from vpr_dhe.verification.estimators.cross_modal.weak_alignment import learning
from vpr_dhe.verification.estimators.cross_modal.weak_alignment.estimator import WeakAlignmentEstimator
from vpr_dhe.verification.estimators.cross_modal.weak_alignment.learning import WeakAlignmentSettings, learn_alignment

SHORT = WeakAlignmentSettings(sides_px=(64,), steps=(120,))
SIZE, WHOLE = Size(160, 120), Size(240, 200)


def texture(seed=0, size=WHOLE):
    """Blobs of all sizes."""
    random = np.random.default_rng(seed)
    layers = [
        cv2.resize(random.random((size.height // cell, size.width // cell, 3)), size, interpolation=cv2.INTER_CUBIC)
        for cell in (5, 10, 20, 40)
    ]
    image = sum(layers) / len(layers)
    return np.clip(255 * (image - image.min()) / (image.max() - image.min()), 0, 255).astype(np.uint8)


def pair(seed=0, negative=False):
    """A crop of a texture, a warp of it by about 3 %, and the homography."""
    truth = np.array([[1.01, -0.02, 4.0], [0.03, 0.99, -3.0], [1e-5, -2e-5, 1.0]])
    whole = texture(seed)
    to_a = np.array([[1.0, 0, -40], [0, 1.0, -40], [0, 0, 1]])
    a = cv2.warpPerspective(whole, to_a, SIZE)
    b = cv2.warpPerspective(whole, truth @ to_a, SIZE, borderMode=cv2.BORDER_REFLECT)
    return a, 255 - b if negative else b, truth


def nobody(_):
    return None


@pytest.mark.parametrize("pseudo_siamese", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_a_small_warp_is_found(pseudo_siamese):
    a, b, truth = pair()
    found = learn_alignment(a, b, replace(SHORT, pseudo_siamese=pseudo_siamese), "cpu", nobody)
    start = corner_error_px(np.eye(3), truth, SIZE)
    assert start > 4
    assert corner_error_px(found.homography, truth, SIZE) < start / 2
    assert found.recognised > 0.5


@pytest.mark.slow
def test_a_negative_is_aligned_with_its_positive():
    a, b, truth = pair(seed=1, negative=True)
    found = learn_alignment(a, b, replace(SHORT, pseudo_siamese=True), "cpu", nobody)
    assert corner_error_px(found.homography, truth, SIZE) < corner_error_px(np.eye(3), truth, SIZE) / 2


def test_progress_is_told_step_by_step_and_comes_to_the_whole():
    a, b, _ = pair()
    told = []
    learn_alignment(a, b, replace(SHORT, sides_px=(48, 64), steps=(3, 4)), "cpu", told.append)
    assert sum(told) == 7
    assert max(told) == 1


def test_time_is_kept(monkeypatch: pytest.MonkeyPatch):
    """A million steps would take hours; what the clock skips counts as done."""
    a, b, _ = pair()
    told = []
    monkeypatch.setattr(learning, "monotonic", itertools.count(step=0.125).__next__)
    learn_alignment(a, b, replace(SHORT, steps=(1_000_000,), max_seconds=0.5), "cpu", told.append)
    assert told == [250_000] * 4


def test_it_learns_where_gradients_are_switched_off():
    a, b, _ = pair()
    few = replace(SHORT, steps=(5,))
    expected = learn_alignment(a, b, few, "cpu", nobody).homography
    assert not np.array_equal(expected, np.eye(3))
    for without_gradients in (torch.no_grad(), torch.inference_mode()):
        with without_gradients:
            assert np.array_equal(learn_alignment(a, b, few, "cpu", nobody).homography, expected)


def test_images_that_show_nothing_have_no_homography():
    a, _, _ = pair()
    grey = np.full_like(a, 128)
    for images in ((a, grey), (grey, a), (grey, grey)):
        assert learn_alignment(*images, SHORT, "cpu", nobody) is None


@pytest.mark.slow
def test_homographies_are_between_originals_of_any_size():
    a, b, truth = pair()
    larger = cv2.resize(b, (320, 240), interpolation=cv2.INTER_CUBIC)
    views = [View(Frame(image_size(image), image_size(image)), lambda image=image: image) for image in (a, larger)]
    found = WeakAlignmentEstimator(SHORT).estimate(views[0], views[1:])
    twice = np.array([[2, 0, 0.5], [0, 2, 0.5], [0, 0, 1.0]]) @ truth
    assert corner_error_px(found.matrices[0].numpy(), twice / twice[2, 2], SIZE) < 4
    assert found.details[0].name == "recognised_share"


def test_what_goes_astray_fails_and_is_finite():
    a, b, _ = pair()
    wild = replace(SHORT, steps=(20,), learning_rate=1e6, max_homography_gradient=1e6)
    view, candidate = (View(Frame(SIZE, SIZE), lambda image=image: image) for image in (a, b))
    found = WeakAlignmentEstimator(wild).estimate(view, [candidate])
    assert found.valid.tolist() == [False]
    assert torch.equal(found.matrices[0], torch.eye(3, dtype=torch.float64))


class Starts(HomographyEstimator):
    """An estimator that knows a homography, or none."""

    name = "starts"

    def __init__(self, homography):
        self.homography = homography

    def estimate(self, query, candidates):
        return Homographies.joined([self.homography for _ in candidates])


def test_learning_begins_at_a_start_and_skips_the_coarsest_level():
    a, b, _ = pair()
    view, candidate = (View(Frame(SIZE, SIZE), lambda image=image: image) for image in (a, b))
    start = np.array([[1.3, 0.0, 9.0], [0.0, 0.8, -5.0], [0.0, 0.0, 1.0]])
    told = []

    def progress(name, total):
        told.append(total)
        return nobody

    # With a rate of zero, nothing is learned.
    still = replace(SHORT, sides_px=(48, 64), steps=(5, 3), learning_rate=0.0)
    for known in (start, None):
        estimator = WeakAlignmentEstimator(still, start=Starts(known), start_progress=progress)
        found = learned_homography(estimator, view, candidate)
        np.testing.assert_allclose(found, np.eye(3) if known is None else start, atol=1e-9)
    assert told == [3, 8]


def learned_homography(estimator, view, candidate):
    (start,) = estimator._starts(view, [candidate])
    return estimator._learn(view, candidate, start).homography
