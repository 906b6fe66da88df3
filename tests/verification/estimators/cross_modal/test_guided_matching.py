"""The verifier `cross-modal` on generated streets in another contrast, warped by a known homography."""

import cv2
import numpy as np
import pytest
import torch

from vpr_dhe.geometry.coordinates import corners
from vpr_dhe.geometry.homography import mean_corner_error, project
from vpr_dhe.images.loading import image_size
from vpr_dhe.records import Frame, Size, Verification
from vpr_dhe.synthetic_town.town import SyntheticTown
from vpr_dhe.verification.estimators.base import View
from vpr_dhe.verification.estimators.cross_modal.guided_matching import CrossModalEstimator, _Compared, mirrored_back
from vpr_dhe.verification.verifier import Verifier

SIDE_PX = 128


@pytest.fixture(scope="module")
def verifier() -> Verifier:
    return Verifier(CrossModalEstimator.bundled())


@pytest.fixture(scope="module")
def streets() -> list[np.ndarray]:
    town = SyntheticTown(seed=5, streets=2)
    return [town.render(camera) for camera in town.database_cameras()[::5][:4]]


def warping(image: np.ndarray, seed: int, share: float = 0.15) -> np.ndarray:
    """Homography that moves the corners by up to a share of the sides."""
    size = image_size(image)
    square = corners(size).numpy()
    moved = square + np.random.default_rng(seed).uniform(-share, share, (4, 2)) * size
    return cv2.getPerspectiveTransform(square.astype(np.float32), moved.astype(np.float32)).astype(np.float64)


def as_thermal(image: np.ndarray) -> np.ndarray:
    """Inverted, bent and blurred grey."""
    grey = cv2.GaussianBlur(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), (0, 0), 1.0)
    bent = 255 * (1 - grey / 255.0) ** 1.5
    return np.repeat(bent.astype(np.uint8)[:, :, None], 3, axis=2)


def verify(verifier: Verifier, a: np.ndarray, b: np.ndarray) -> Verification:
    views = [View(Frame(image_size(image), image_size(image)), lambda image=image: image) for image in (a, b)]
    return verifier.verify(views[0], views[1:])[0]


def test_an_inverted_street_is_aligned(verifier, streets):
    for number, street in enumerate(streets):
        truth = warping(street, number)
        other = as_thermal(cv2.warpPerspective(street, truth, image_size(street), borderMode=cv2.BORDER_REFLECT))
        found = verify(verifier, street, other)
        assert found.homography is not None
        assert found.inliers >= 20
        error_px = mean_corner_error(*map(torch.from_numpy, (found.homography, truth)), corners(image_size(street)))
        assert float(error_px) < 0.03 * max(image_size(street))


def test_unrelated_images_fail(verifier, streets):
    noise = np.random.default_rng(0).integers(0, 256, streets[0].shape, np.uint8)
    assert verify(verifier, streets[0], noise).homography is None
    assert verify(verifier, streets[0], np.full_like(streets[0], 90)).homography is None


def test_an_answer_depends_on_no_other_candidate(verifier, streets):
    images = [*streets, as_thermal(streets[0])]
    a, *others = (View(Frame(image_size(one), image_size(one)), lambda one=one: one) for one in images)
    together = verifier.verify(a, others)
    for view, found in zip(others, together, strict=True):
        (alone,) = verifier.verify(a, [view])
        assert alone.score == found.score
        assert (alone.homography is None) == (found.homography is None)
    np.testing.assert_allclose(together[-1].homography, alone.homography, atol=1e-6)


@pytest.mark.parametrize("radius_px", [np.inf, 16.0])
def test_matches_are_mutual_and_one_to_one(verifier, radius_px):
    estimator, places = verifier.estimator, verifier.estimator._centres
    similarity = np.random.default_rng(0).uniform(-1, 1, (len(places), len(places))).astype(np.float32)
    found = estimator._match(_Compared(places, similarity), radius_px)
    allowed = np.where(torch.cdist(places, places).numpy() <= radius_px, similarity, -2)
    pairs = [(a, b) for a, b in enumerate(allowed.argmax(axis=1)) if allowed[:, b].argmax() == a]
    assert len(pairs) > 20
    torch.testing.assert_close(found.query_points, places[[a for a, _ in pairs]])
    torch.testing.assert_close(found.similarity, torch.from_numpy(similarity)[*zip(*pairs, strict=True)])
    step_px = float(places[1, 0] - places[0, 0])
    assert (found.candidate_points - places[[b for _, b in pairs]]).abs().max() <= step_px
    of_equal = estimator._match(_Compared(places, np.full_like(similarity, 0.5)), radius_px)
    assert len(np.unique(of_equal.candidate_points.numpy(), axis=0)) == len(of_equal.similarity) > 0
    assert (len(of_equal.similarity) == 1) == (radius_px == np.inf)


def test_mirror_images_have_mirrored_displacements():
    size = Size(SIDE_PX, SIDE_PX)
    square = corners(size)
    truth = torch.from_numpy(warping(np.zeros((SIDE_PX, SIDE_PX, 3), np.uint8), 3))
    across = torch.tensor([[-1.0, 0, SIDE_PX - 1], [0, 1, 0], [0, 0, 1]], dtype=torch.float64)
    below = torch.tensor([[1.0, 0, 0], [0, -1, SIDE_PX - 1], [0, 0, 1]], dtype=torch.float64)
    mirrors = [torch.eye(3, dtype=torch.float64), across, below, across @ below]
    displacements = torch.stack([project(mirror @ truth @ mirror, square) - square for mirror in mirrors])
    expected = (project(truth, square) - square).expand(4, 4, 2)
    torch.testing.assert_close(mirrored_back(displacements), expected)
