"""The estimator: planes, their order, and the flow are those of images with a known relation."""

import cv2
import numpy as np
import pytest
import torch
from patches import PatchExtractor, texture

from vpr_dhe.errors import ModelError
from vpr_dhe.geometry.coordinates import corners
from vpr_dhe.geometry.homography import mean_corner_error
from vpr_dhe.images.loading import image_size
from vpr_dhe.models.network_file import network_file
from vpr_dhe.records import Frame, Size
from vpr_dhe.verification.build import build_estimator
from vpr_dhe.verification.estimators.base import View
from vpr_dhe.verification.estimators.ransac_flow import NAME, CoarseRansacFlowEstimator, RansacFlowEstimator
from vpr_dhe.verification.estimators.ransac_flow.network import Fine, FineNetwork, FineSettings
from vpr_dhe.verification.estimators.resources import Resources

EXTRACTOR = PatchExtractor()
SMALL = FineSettings(8, 8, 16, 16, 16, 16)


class Sees(FineNetwork):
    """Says that nothing has moved, and that what looks alike to the eye is matchable."""

    def __init__(self):
        super().__init__(SMALL)

    def extract(self, images):
        return torch.nn.functional.avg_pool2d(images, 8)

    def compare(self, source, target):
        alike = ((source - target).abs().mean(dim=1, keepdim=True) < 0.08).float()
        alike = torch.nn.functional.max_pool2d(-torch.nn.functional.max_pool2d(-alike, 3, 1, 1), 3, 1, 1)
        matchability = torch.nn.functional.interpolate(alike, scale_factor=8, mode="nearest")
        offsets = torch.zeros(len(source), 49, *source.shape[2:])
        return Fine(torch.zeros(len(source), 2, *matchability.shape[2:]), matchability, offsets, offsets)


def view(image):
    size = image_size(image)
    return View(Frame(size, EXTRACTOR.spec.input_size), lambda: image, lambda: EXTRACTOR.extract([image])[0])


def moved(image, matrix):
    return cv2.warpPerspective(image, np.array(matrix, np.float64), image_size(image), borderMode=cv2.BORDER_REFLECT)


def test_one_plane():
    image = texture()
    truth = np.array([[1.05, 0.04, 12], [-0.03, 0.98, 8], [1e-4, 0, 1]])
    found = RansacFlowEstimator(Sees(), EXTRACTOR).estimate(view(image), [view(moved(image, truth))])
    error = mean_corner_error(found.matrices[0], torch.from_numpy(truth), corners(image_size(image)))
    assert found.valid.tolist() == [True]
    assert float(error) < 6
    (evidence,) = found.details
    assert evidence.name == "matchable_area"
    assert evidence.value > 0.5


def test_two_planes_are_found_one_after_the_other():
    image = texture(seed=4)
    left, right = moved(image, [[1, 0, 0], [0, 1, 40], [0, 0, 1]]), moved(image, [[1, 0, 0], [0, 1, -40], [0, 0, 1]])
    both = np.concatenate([left[:, :240], right[:, 240:]], axis=1)
    found = RansacFlowEstimator(Sees(), EXTRACTOR).estimate(view(image), [view(both)])
    alignment = found.details[0].alignment
    assert len(alignment.homographies) == 2
    height, width = alignment.homography_of.shape
    assert set(np.unique(alignment.homography_of)) == {0, 1}
    flow_y = alignment.flow_px[..., 1]
    sure = alignment.matchability >= 0.95
    middle = slice(height // 4, -height // 4)
    for columns, expected in ((slice(8, width // 2), 40), (slice(3 * width // 4, width - 8), -40)):
        chosen = sure[middle, columns]
        assert chosen.mean() > 0.3
        assert np.median(flow_y[middle, columns][chosen]) == pytest.approx(expected, abs=4)


def test_what_lies_outside_the_candidate_is_not_matchable():
    image = texture()
    found = RansacFlowEstimator(Sees(), EXTRACTOR).estimate(
        view(image), [view(moved(image, [[1, 0, 150], [0, 1, 0], [0, 0, 1]]))]
    )
    alignment = found.details[0].alignment
    columns = alignment.matchability.shape[1]
    assert alignment.matchability[:, int(columns * 0.7) :].max() == 0


def test_nothing_in_common_fails_and_says_so():
    flat = np.full((200, 200, 3), 128, np.uint8)
    found = RansacFlowEstimator(Sees(), EXTRACTOR).estimate(view(texture()), [view(flat)])
    assert torch.isfinite(found.matrices).all()
    assert found.valid.tolist() == [False]
    assert (found.details[0].value, found.details[0].alignment) == (0, None)


def test_candidates_do_not_change_each_other_nor_the_random_state():
    image, other = texture(), moved(texture(), [[1, 0, 9], [0, 1, 5], [0, 0, 1]])
    torch.manual_seed(0)
    estimator = RansacFlowEstimator(FineNetwork(SMALL), EXTRACTOR)
    before = torch.get_rng_state()
    together = estimator.estimate(view(image), [view(other), view(texture(seed=3))])
    assert torch.equal(torch.get_rng_state(), before)
    alone = estimator.estimate(view(image), [view(other)])
    assert torch.equal(together.matrices[0], alone.matrices[0])
    assert together.details[0].value == alone.details[0].value
    assert estimator.estimate(view(image), []).matrices.shape == (0, 3, 3)


def test_without_a_network_planes_are_homographies_alone():
    image = texture(seed=4)
    left, right = moved(image, [[1, 0, 0], [0, 1, 40], [0, 0, 1]]), moved(image, [[1, 0, 0], [0, 1, -40], [0, 0, 1]])
    both = np.concatenate([left[:, :240], right[:, 240:]], axis=1)
    found = CoarseRansacFlowEstimator(EXTRACTOR).estimate(view(image), [view(both), view(np.full_like(image, 90))])
    assert found.valid.tolist() == [True, False]
    assert [(one.name, one.value, one.alignment) for one in found.details] == [
        ("planes", 2, None),
        ("planes", 0, None),
    ]
    shift = found.matrices[0] @ torch.tensor([320.0, 240, 1]).double()
    assert abs(abs(float(shift[1] / shift[2]) - 240) - 40) < 6


def test_images_that_are_not_indexed_are_extracted_when_they_are_seen():
    image = texture()
    size = image_size(image)
    plain = View(Frame(size, size), lambda: image)
    found = RansacFlowEstimator(Sees()).estimate(plain, [plain])
    assert float(mean_corner_error(found.matrices[0], torch.eye(3).double(), corners(Size(*size)))) < 1


def test_is_built_from_its_network_file():
    file = network_file(NAME, SMALL, FineNetwork(SMALL), training_data="none")
    assert build_estimator(NAME, Resources(networks={NAME: file})).name == NAME
    assert isinstance(build_estimator(NAME, Resources(EXTRACTOR)), CoarseRansacFlowEstimator)
    other = network_file(NAME, FineSettings(), FineNetwork(SMALL), training_data="none")
    with pytest.raises(ModelError, match="does not fit its network"):
        build_estimator(NAME, Resources(networks={NAME: other}))
