"""Warping against OpenCV, and which pixels land inside."""

import cv2
import numpy as np
import torch

from vpr_dhe.geometry.coordinates import corners
from vpr_dhe.geometry.homography import four_point_homography
from vpr_dhe.geometry.warping import lands_inside, warp
from vpr_dhe.records import Size


def test_a_warp_is_what_opencv_makes_of_the_inverse():
    rng = np.random.default_rng(0)
    image = cv2.GaussianBlur(rng.uniform(0, 1, (40, 50)).astype(np.float32), (0, 0), 2)
    size = Size(32, 24)
    moved = corners(size) + torch.from_numpy(rng.uniform(0, 10, (4, 2)))
    homography = four_point_homography(corners(size), moved)
    ours = warp(torch.from_numpy(image)[None, None], homography[None], size)[0, 0].numpy()
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    theirs = cv2.warpPerspective(image, homography.numpy(), size, flags=flags)
    # OpenCV rounds positions to 1/32 pixel.
    np.testing.assert_allclose(ours, theirs, atol=0.02)
    np.testing.assert_allclose(ours.mean(), theirs.mean(), atol=1e-3)


def test_the_gradient_reaches_image_and_homography():
    image = torch.rand(1, 1, 12, 12, generator=torch.Generator().manual_seed(0), dtype=torch.float64).requires_grad_()
    size = Size(6, 6)
    shift = torch.full((1, 4, 2), 2.3, dtype=torch.float64).requires_grad_()

    def warped(image, shift):
        square = corners(size).expand(1, 4, 2)
        return warp(image, four_point_homography(square, square + shift), size)

    assert torch.autograd.gradcheck(warped, (image, shift))


def test_what_lands_inside_is_counted_exactly():
    shift = torch.eye(3, dtype=torch.float64)
    shift[0, 2] = 3.0
    inside = lands_inside(shift[None], Size(10, 8), Size(10, 8))[0]
    assert inside[:, :7].all()
    assert not inside[:, 7:].any()
    beyond_the_horizon = torch.eye(3, dtype=torch.float64)
    beyond_the_horizon[2, 0] = -0.2
    seen = lands_inside(beyond_the_horizon[None], Size(10, 8), Size(1000, 1000))[0]
    # Depth 1 - 0.2 x vanishes at x = 5; the middle, at 4.5, is before it.
    assert seen[:, :5].all()
    assert not seen[:, 5:].any()
