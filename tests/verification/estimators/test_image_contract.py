"""What every estimator that looks at images must do, whatever its method: new ones are tested by being registered.

A method that needs a network of its own is tested with a small one of random weights, from `NETWORKS`; one of another
package where that is installed, and a family of them by a package that stands for it.
"""

from dataclasses import replace
from functools import partial

import cv2
import fake_vismatch
import numpy as np
import pytest
import torch

from vpr_dhe.errors import MissingExtraError
from vpr_dhe.images.loading import image_size
from vpr_dhe.models.network_file import NetworkFile, network_file
from vpr_dhe.records import Frame, Size
from vpr_dhe.verification.build import build_estimator
from vpr_dhe.verification.estimators.base import HomographyEstimator, View
from vpr_dhe.verification.estimators.cross_modal.registration.networks import RegistrationSettings, build_registration
from vpr_dhe.verification.estimators.cross_modal.sshnet import SshnetNetwork, SshnetSettings
from vpr_dhe.verification.estimators.cross_modal.weak_alignment.network import new_network
from vpr_dhe.verification.estimators.cross_modal.weak_descriptor import WeakDescriptorSettings
from vpr_dhe.verification.estimators.ransac_flow.network import FineNetwork, FineSettings
from vpr_dhe.verification.estimators.registry import ESTIMATORS, Needs
from vpr_dhe.verification.estimators.resources import Resources

SIZE = Size(120, 90)
FROM_IMAGES = [name for name, spec in ESTIMATORS.items() if spec.needs in {Needs.images, Needs.network}]
FROM_IMAGES += ["vismatch:sift", "vismatch:scattered"]


def weak_descriptor() -> NetworkFile:
    network = new_network(0, pseudo_siamese=False)
    return network_file("weak-descriptor", WeakDescriptorSettings(), network, training_data="nothing")


def ransac_flow() -> NetworkFile:
    settings = FineSettings(8, 8, 16, 16, 16, 16)
    return network_file("ransac-flow", settings, FineNetwork(settings), training_data="nothing")


def registration(method: str) -> NetworkFile:
    settings = RegistrationSettings("iterative", side_px=32, width=8, iterations=2)
    return network_file(method, settings, build_registration(settings), training_data="nothing")


def sshnet() -> NetworkFile:
    settings = SshnetSettings(
        "iterative", side_px=32, width=8, iterations=2, transfer="convolutional", transfer_width=4
    )
    return network_file("sshnet", settings, SshnetNetwork(settings), training_data="nothing")


NETWORKS = {
    "weak-descriptor": weak_descriptor,
    "ransac-flow": ransac_flow,
    "iterative": partial(registration, "iterative"),
    "alto": partial(registration, "alto"),
    "sshnet": sshnet,
    "sshnet-d": partial(registration, "sshnet-d"),
}


def short(estimator: HomographyEstimator) -> HomographyEstimator:
    """A method that learns on the pair learns less, and as much each time."""
    if estimator.name.startswith("weak-alignment"):
        estimator.settings = replace(estimator.settings, sides_px=(48,), steps=(3,))
    return estimator


@pytest.fixture(params=FROM_IMAGES)
def estimator(request, tmp_path, monkeypatch) -> HomographyEstimator:
    if request.param.startswith("vismatch:"):
        fake_vismatch.install(tmp_path, monkeypatch)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        networks = {request.param: NETWORKS[request.param]()} if request.param in NETWORKS else {}
    try:
        return short(build_estimator(request.param, Resources(networks=networks)))
    except MissingExtraError as missing:
        pytest.skip(str(missing))


def picture(seed: int, size: Size = SIZE) -> np.ndarray:
    """Blobs of several sizes."""
    random = np.random.default_rng(seed)
    parts = [
        cv2.resize(random.random((size.height // cell, size.width // cell, 3)), size, interpolation=cv2.INTER_CUBIC)
        for cell in (4, 8, 16)
    ]
    return np.clip(255 * sum(parts) / 3, 0, 255).astype(np.uint8)


def view(image: np.ndarray) -> View:
    return View(Frame(image_size(image), image_size(image)), lambda: image)


QUERY = picture(0)
CANDIDATES = [np.roll(QUERY, 3, axis=1), picture(1, Size(100, 130)), picture(2)]


def test_it_says_that_it_uses_images(estimator):
    assert estimator.uses_images


def test_matrices_are_double_normalised_and_finite(estimator):
    found = estimator.estimate(view(QUERY), [view(image) for image in CANDIDATES])
    assert found.matrices.dtype == torch.float64
    assert found.matrices.shape == (3, 3, 3)
    assert torch.allclose(found.matrices[:, 2, 2], torch.ones(3, dtype=torch.float64))
    assert torch.isfinite(found.matrices).all()
    assert found.valid.shape == (3,)
    identity = torch.eye(3, dtype=torch.float64)
    assert all(torch.equal(matrix, identity) for matrix in found.matrices[~found.valid])
    assert found.details is None or len(found.details) == 3


def test_no_candidates_are_no_homographies(estimator):
    found = estimator.estimate(view(QUERY), [])
    assert (tuple(found.matrices.shape), tuple(found.valid.shape)) == ((0, 3, 3), (0,))


@pytest.mark.parametrize("size", [SIZE, Size(16, 16), Size(300, 16)])
def test_flat_images_never_give_nan_nor_an_exception(estimator, size):
    flat = np.full((size.height, size.width, 3), 77, np.uint8)
    for query, candidates in ((flat, (QUERY, flat)), (QUERY, (flat,))):
        found = estimator.estimate(view(query), [view(candidate) for candidate in candidates])
        assert torch.isfinite(found.matrices).all()


def test_small_and_long_images_never_give_nan_nor_an_exception(estimator):
    random = np.random.default_rng(0)
    candidates = [random.integers(0, 256, shape, np.uint8) for shape in ((16, 16, 3), (16, 400, 3))]
    found = estimator.estimate(view(QUERY), [view(candidate) for candidate in candidates])
    assert torch.isfinite(found.matrices).all()


def test_is_deterministic_and_independent_of_the_batch(estimator):
    views = [view(image) for image in CANDIDATES]
    together = estimator.estimate(view(QUERY), views)
    again = estimator.estimate(view(QUERY), views)
    assert torch.equal(together.matrices, again.matrices)
    assert torch.equal(together.valid, again.valid)
    for place, candidate in enumerate(views):
        alone = estimator.estimate(view(QUERY), [candidate])
        # Sums over a batch may be rounded in another order, by far less than a pixel shows.
        assert torch.allclose(alone.matrices[0], together.matrices[place], rtol=1e-4, atol=1e-4)


def test_leaves_the_random_state_of_the_caller_alone(estimator):
    torch.manual_seed(5)
    np.random.seed(5)
    expected = torch.rand(3), np.random.rand(3)
    torch.manual_seed(5)
    np.random.seed(5)
    estimator.estimate(view(QUERY), [view(CANDIDATES[0])])
    assert torch.equal(torch.rand(3), expected[0])
    assert (np.random.rand(3) == expected[1]).all()
