"""The learned descriptor at SIFT keypoints: where they lie, what is sampled there, and what is made of matches."""

import cv2
import numpy as np
import pytest
import torch

from vpr_dhe.errors import ModelError
from vpr_dhe.evaluation.alignment_metrics import corner_error_px
from vpr_dhe.images.loading import image_size
from vpr_dhe.models.network_file import NetworkFile, network_file
from vpr_dhe.records import Frame, Size
from vpr_dhe.verification.build import build_estimator
from vpr_dhe.verification.estimators.base import View
from vpr_dhe.verification.estimators.cross_modal.weak_alignment.network import new_network
from vpr_dhe.verification.estimators.cross_modal.weak_alignment.patches import PatchFrames
from vpr_dhe.verification.estimators.cross_modal.weak_descriptor import (
    WeakDescriptorEstimator,
    WeakDescriptorSettings,
    detect_frames,
    match_mutually,
    scaled_patches,
)
from vpr_dhe.verification.estimators.resources import Resources

SIZE = Size(200, 160)


def picture(seed=0):
    random = np.random.default_rng(seed)
    parts = [cv2.resize(random.random((160 // c, 200 // c, 3)), SIZE, interpolation=cv2.INTER_CUBIC) for c in (5, 10)]
    return np.clip(255 * sum(parts) / 2, 0, 255).astype(np.uint8)


def view(image):
    return View(Frame(image_size(image), image_size(image)), lambda: image)


def untrained(pseudo_siamese=False):
    network = new_network(0, pseudo_siamese=pseudo_siamese)
    return network_file(
        "weak-descriptor", WeakDescriptorSettings(int(pseudo_siamese)), network, training_data="nothing"
    )


def test_even_random_weights_find_a_shift():
    """Equal patches have equal descriptors, whatever the weights."""
    image = picture()
    a, b = image[:150, :190], image[6:156, 10:200]
    estimator = build_estimator("weak-descriptor", Resources(networks={"weak-descriptor": untrained()}))
    found = estimator.estimate(view(a), [view(b), view(picture(1))])
    assert found.valid.tolist()[0]
    truth = np.array([[1, 0, -10], [0, 1, -6], [0, 0, 1.0]])
    assert corner_error_px(found.matrices[0].numpy(), truth, image_size(a)) < 2
    assert not found.valid[1]


def test_a_file_says_whether_it_is_pseudo_siamese():
    estimator = WeakDescriptorEstimator.from_file(untrained(pseudo_siamese=True))
    assert estimator.network.first_b is not None
    with pytest.raises(ModelError, match="does not fit its network"):
        WeakDescriptorEstimator.from_file(
            NetworkFile("weak-descriptor", {"pseudo_siamese": 0}, "MIT", "x", untrained(pseudo_siamese=True).tensors)
        )


def test_keypoints_lie_on_blobs_and_are_as_wide_as_sift_looks():
    image = np.full((160, 200, 3), 40, np.uint8)
    cv2.circle(image, (120, 70), 8, (220, 220, 220), -1, cv2.LINE_AA)
    frames = detect_frames(image)
    nearest = torch.linalg.vector_norm(frames.centres - torch.tensor([120.0, 70.0]), dim=1).argmin()
    assert torch.allclose(frames.centres[nearest], torch.tensor([120.0, 70.0]), atol=1)
    # A disc of radius r is a blob of sigma r / sqrt(2), of which SIFT looks at twelve.
    assert float(frames.widths_px()[nearest]) == pytest.approx(12 * 8 / 2**0.5, rel=0.2)


def test_large_patches_are_averages_and_not_samples():
    """White noise has nothing to see in the large, and an edge stays where it is."""
    noise = np.random.default_rng(0).integers(0, 256, (256, 256, 3), np.uint8)
    large = PatchFrames(torch.tensor([[128.0, 128.0]]), torch.tensor([[8.0, 0.0]]))
    small = PatchFrames(torch.tensor([[128.0, 128.0]]), torch.tensor([[1.0, 0.0]]))
    assert scaled_patches(noise, large).std() < 0.25 * scaled_patches(noise, small).std()
    edge = np.zeros((256, 250, 3), np.uint8)
    edge[:, 125:] = 255
    across = scaled_patches(edge, PatchFrames(torch.tensor([[124.5, 128.0]]), torch.tensor([[8.0, 0.0]])))[0, 0]
    assert torch.allclose(across, -across.flip(1), atol=0.05)
    flat = scaled_patches(np.full((64, 64, 3), 9, np.uint8), small)
    assert not flat.any()


def test_matches_are_mutual():
    a = torch.tensor([[0.0], [1.0], [5.0]])
    b = torch.tensor([[1.2], [0.9], [8.0]])
    of_a, of_b = match_mutually(a, b)
    assert (of_a.tolist(), of_b.tolist()) == ([1, 2], [1, 2])
    assert len(match_mutually(a, b[:0])[0]) == 0
