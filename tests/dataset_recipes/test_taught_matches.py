"""Labels by a teacher: kept where an epipolar geometry agrees, and in the pixels of relit and mirrored photos."""

import sys
from pathlib import Path

import cv2
import numpy as np
import PIL.Image
import pytest
import torch

from vpr_dhe.features.extractor import load_extractor
from vpr_dhe.images.decoding import decode_named
from vpr_dhe.verification.estimators.matchers.keypoints import Pairs

sys.path.append(str(Path(__file__).parents[2] / "datasets"))
import taught_matches

SHIFT_PX = 24


class SiftTeacher:
    """SIFT and its mutual nearest neighbours in place of ALIKED and LightGlue."""

    def extract(self, image):
        """Extract keypoints and descriptors."""
        grey = np.rint(255 * image.mean(dim=0).numpy()).astype(np.uint8)
        keypoints, descriptors = cv2.SIFT_create(300).detectAndCompute(grey, None)
        return torch.tensor([point.pt for point in keypoints]), torch.from_numpy(descriptors) / 512

    def match(self, one, other):
        """Match them."""
        found = cv2.BFMatcher(cv2.NORM_L2, crossCheck=True).match(
            one.descriptors.float().numpy(), other.descriptors.float().numpy()
        )
        index = torch.tensor([(match.queryIdx, match.trainIdx) for match in found])
        return Pairs(index[:, 0], index[:, 1], torch.ones(len(index)))


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """Two photos of one wall, a shift apart, of another size each, and one of another wall."""
    folder = tmp_path_factory.mktemp("photos")
    (folder / "walls").mkdir()
    for name, seed, left, scale in (("a", 0, 0, 1), ("b", 0, SHIFT_PX, 2), ("c", 1, 0, 1)):
        coarse = np.random.default_rng(seed).uniform(0, 255, (40, 52, 3)).astype(np.float32)
        wall = cv2.resize(coarse, (416, 320), interpolation=cv2.INTER_CUBIC)[:256, left : left + 320]
        pixels = np.clip(cv2.resize(wall, None, fx=scale, fy=scale), 0, 255).astype(np.uint8)
        PIL.Image.fromarray(pixels).save(folder / "walls" / f"{name}.png")
    return folder


@pytest.fixture(scope="module")
def labelled(photos, tmp_path_factory):
    out = tmp_path_factory.mktemp("labels") / "matches.npz"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(taught_matches, "LightGlueMatcher", SiftTeacher)
        names = [f"walls/{name}.png" for name in "abc"]
        taught_matches.label_matches(photos, names, load_extractor("sift-vlad"), out)
    return taught_matches.MatchedImages(photos, out)


def test_photos_of_one_wall_are_paired_and_others_are_not(photos, labelled):
    assert len(labelled) == 1
    assert labelled.pair(0, np.random.default_rng(0)).places == {str(photos / f"walls/{name}.png") for name in "ab"}


def test_matches_are_in_the_pixels_of_each_photo_also_mirrored(photos, labelled):
    mirrored = 0
    for seed in range(6):
        pair = labelled.pair(0, np.random.default_rng(seed))
        assert (pair.image_a.shape, pair.image_b.shape) == ((256, 320, 3), (512, 640, 3))
        in_mirror = is_mirrored(pair.image_a, photos / "walls/a.png")
        mirrored += in_mirror
        x, y, x_b, y_b = pair.matches.T
        expected = x + SHIFT_PX if in_mirror else x - SHIFT_PX
        assert np.median(np.abs((x_b - 0.5) / 2 - expected)) < 0.5
        assert np.median(np.abs((y_b - 0.5) / 2 - y)) < 0.5
    assert 0 < mirrored < 6


def is_mirrored(image, path):
    """Whether a relit image is that of a file in a mirror."""
    original = decode_named(path)
    like, in_mirror = (np.corrcoef(image.ravel(), other.ravel())[0, 1] for other in (original, original[:, ::-1]))
    return in_mirror > like
