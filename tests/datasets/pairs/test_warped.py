"""Warps of photos: exact, reproducible, and independent of one another."""

import cv2
import numpy as np
import PIL.Image
import pytest
import torch

from vpr_dhe.datasets.pairs.warped import MAX_OFFSET_PX, PATCH_SIZE, PHOTO_SIZE, read_warps
from vpr_dhe.errors import DatasetError
from vpr_dhe.geometry.coordinates import corners
from vpr_dhe.geometry.homography import project

COUNT = 5


@pytest.fixture
def photos(tmp_path):
    y, x = np.mgrid[0 : PHOTO_SIZE.height, 0 : PHOTO_SIZE.width]
    for number in range(COUNT):
        waves = [np.sin(x / (9.0 + number)), np.cos(y / 11.0), np.sin((x + y) / (15.0 + number))]
        picture = (127 + 100 * np.stack(waves, axis=-1)).astype(np.uint8)
        (tmp_path / "sub").mkdir(exist_ok=True)
        PIL.Image.fromarray(picture).save(tmp_path / "sub" / f"{number}.png")
    return tmp_path


def test_the_patches_agree_with_the_homography_to_a_fraction_of_a_pixel(photos):
    for pair in read_warps(photos).pairs:
        image_a, image_b = pair.image_a(), pair.image_b()
        assert image_a.shape == image_b.shape == (PATCH_SIZE.height, PATCH_SIZE.width, 3)
        inside = cv2.warpPerspective(np.ones(image_a.shape[:2], np.uint8), pair.homography, PATCH_SIZE)
        inside = cv2.erode(inside, np.ones((3, 3), np.uint8), borderValue=0).astype(bool)

        def difference(homography: np.ndarray, a=image_a, b=image_b, where=inside) -> float:
            warped = cv2.warpPerspective(a, homography, PATCH_SIZE)
            return float(np.abs(warped[where].astype(int) - b[where]).mean())

        right = difference(pair.homography)
        assert right < 1.0
        for x, y in ((0.25, 0), (-0.25, 0), (0, 0.25), (0, -0.25)):
            assert difference(np.array([[1, 0, x], [0, 1, y], [0, 0, 1.0]]) @ pair.homography) > right


def test_corners_move_within_the_published_range_and_differ(photos):
    offsets = []
    for pair in read_warps(photos).pairs:
        back = torch.from_numpy(np.linalg.inv(pair.homography))
        offsets.append(project(back, corners(PATCH_SIZE)) - corners(PATCH_SIZE))
    moved = torch.stack(offsets)
    assert moved.abs().max() <= MAX_OFFSET_PX + 1e-9
    assert moved.abs().max() > 0.8 * MAX_OFFSET_PX
    assert len(torch.unique(moved)) == moved.numel()


def test_the_same_seed_gives_the_same_pairs_whatever_else_is_there(photos):
    before = {pair.name: pair for pair in read_warps(photos).pairs}
    (photos / "sub" / "0.png").unlink()
    for pair in read_warps(photos).pairs:
        np.testing.assert_array_equal(pair.homography, before[pair.name].homography)
        np.testing.assert_array_equal(pair.image_b(), before[pair.name].image_b())
    other = read_warps(photos, seed=1).pairs[0]
    assert np.abs(other.homography - before[other.name].homography).max() > 1e-3


def test_the_warps_never_change(photos):
    # Results reported on warps must mean the same on every machine and in every version.
    first = read_warps(photos).pairs[0]
    assert first.name == "sub/0.png"
    expected = [
        [1.47930121, 0.210398896, 11.4004375],
        [0.501544847, 1.29092891, -17.6194209],
        [0.0040976851, 0.00286473394, 1.0],
    ]
    np.testing.assert_allclose(first.homography, expected, rtol=1e-7)


def test_a_folder_without_photos_is_refused(tmp_path):
    with pytest.raises(DatasetError, match="holds no images"):
        read_warps(tmp_path)
