"""Patches: a homography moves, turns and scales them, and what they show follows."""

import numpy as np
import pytest
import torch

from vpr_dhe.records import Size
from vpr_dhe.verification.estimators.cross_modal.weak_alignment.levels import draw_keypoints, level_image
from vpr_dhe.verification.estimators.cross_modal.weak_alignment.patches import (
    SIDE,
    PatchFrames,
    sample_patches,
    warp_frames,
)


def frames(count=5, seed=0, dtype=torch.float64):
    random = torch.Generator().manual_seed(seed)
    centres = 20 + 20 * torch.rand(count, 2, generator=random, dtype=dtype)
    return PatchFrames(centres, torch.randn(count, 2, generator=random, dtype=dtype))


def similarity(scale, angle, x, y):
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    matrix = np.eye(3)
    matrix[:2, :2], matrix[:2, 2] = scale * turn, (x, y)
    return torch.from_numpy(matrix), torch.from_numpy(scale * turn)


def test_a_similarity_turns_and_scales_patches_exactly():
    homography, linear = similarity(1.5, 0.7, 4.0, -3.0)
    some = frames()
    moved = warp_frames(some, homography)
    assert torch.allclose(moved.centres, some.centres @ linear.T + torch.tensor([4.0, -3.0], dtype=torch.float64))
    assert torch.allclose(moved.steps, some.steps @ linear.T)
    assert torch.allclose(moved.widths_px(), 1.5 * some.widths_px())


def test_patches_lie_inside_however_they_are_turned():
    inside = PatchFrames(torch.tensor([[11.0, 11.0]]), torch.tensor([[1.0, 0.0]]))
    assert inside.inside(Size(23, 23)).all()
    assert not PatchFrames(inside.centres - 0.5, inside.steps).inside(Size(23, 23)).any()
    assert not PatchFrames(inside.centres, 1.1 * inside.steps).inside(Size(23, 23)).any()


def test_an_upright_patch_is_a_piece_of_the_image():
    image = torch.rand(3, 40, 50, generator=torch.Generator().manual_seed(0))
    patch = sample_patches(image, PatchFrames(torch.tensor([[17.5, 12.5]]), torch.tensor([[1.0, 0.0]])))
    assert torch.allclose(patch[0], image[:, 5:21, 10:26], atol=1e-5)
    turned = sample_patches(image, PatchFrames(torch.tensor([[17.5, 12.5]]), torch.tensor([[0.0, 1.0]])))
    assert torch.allclose(turned[0], torch.rot90(image[:, 5:21, 10:26], 1, (1, 2)), atol=1e-5)


def test_warped_frames_show_what_the_frames_showed():
    """B is A moved by a similarity, so the patches of both are equal but for interpolation."""
    y, x = torch.meshgrid(torch.arange(80.0), torch.arange(80.0), indexing="ij")

    def shown(x, y):
        return torch.stack([torch.sin(x / 7), torch.cos(y / 5), torch.sin((x + y) / 9)])

    homography, _ = similarity(1.2, 0.4, 6.0, -8.0)
    back = torch.linalg.inv(homography).float()
    source = torch.stack([x, y, torch.ones_like(x)], dim=-1) @ back.T
    image_b = shown(source[..., 0], source[..., 1])
    some = PatchFrames(torch.tensor([[30.0, 32.0], [36.0, 28.0]]), torch.tensor([[0.8, 0.3], [-0.5, 0.9]]))
    in_a = sample_patches(shown(x, y), some)
    in_b = sample_patches(image_b, warp_frames(some, homography.float()))
    assert (in_a - in_b).abs().max() < 0.02


@pytest.mark.slow
def test_what_patches_show_has_a_gradient_to_the_homography():
    image = torch.rand(3, 60, 60, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    some = frames(2)

    def patches(entries):
        last = torch.ones(1, dtype=torch.float64)
        return sample_patches(image, warp_frames(some, torch.cat([entries, last]).view(3, 3)))

    # Between samples of the image the interpolation is smooth; these frames do not lie on any.
    entries = torch.tensor([1.01, 0.02, 0.3, -0.03, 0.98, 0.2, 1e-4, 2e-4], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(patches, (entries,), eps=1e-8, atol=1e-4, nondet_tol=1e-9)


def test_points_that_are_no_numbers_are_survived():
    centres = torch.tensor([[float("nan"), 3.0], [float("inf"), 1e30], [-1e38, 0.0]] * 32, requires_grad=True)
    steps = torch.tensor([[1e38, float("nan")]]).expand(len(centres), 2)
    patches = sample_patches(torch.ones(3, 43, 64), PatchFrames(centres, steps))
    assert torch.equal(patches, torch.ones(len(centres), 3, 16, 16))
    patches.sum().backward()


def test_keypoints_are_where_there_is_something_to_see():
    grey = np.zeros((64, 96), np.float32)
    grey[:, 48:] = 1
    keypoints = draw_keypoints(grey, 0.5, np.random.default_rng(0))
    assert 0 < len(keypoints.centres) <= 4000
    assert set(keypoints.centres[:, 0].tolist()) == {47.0, 48.0}
    assert keypoints.inside(Size(96, 64)).all()
    scales = torch.linalg.vector_norm(keypoints.steps, dim=1)
    assert 1 - 1e-5 <= scales.min() < 1.05
    assert 1.35 < scales.max() <= 2**0.5 + 1e-5
    turned = torch.atan2(keypoints.steps[:, 1], keypoints.steps[:, 0])
    assert torch.histc(turned, 8, -np.pi, np.pi).min() > 0.08 * len(turned)
    assert not len(draw_keypoints(np.zeros((64, 96), np.float32), 0.5, np.random.default_rng(0)).centres)


def test_levels_have_mean_0_and_deviation_1_and_nothing_is_made_larger():
    image = np.random.default_rng(0).integers(0, 256, (90, 120, 3), np.uint8)
    level = level_image(image, 64, 1.0, np.random.default_rng(0))
    assert level.pixels.shape == (3, 48, 64)
    assert float(level.pixels.mean()) == pytest.approx(0, abs=1e-5)
    assert float(level.pixels.std()) == pytest.approx(1, abs=1e-3)
    assert level.frame == (Size(120, 90), Size(64, 48))
    assert level_image(image, 640, 1.0, np.random.default_rng(0)).pixels.shape == (3, 90, 120)
    assert level_image(np.full_like(image, 7), 64, 1.0, np.random.default_rng(0)) is None
    assert len(level.keypoints.widths_px()) > 1000
    assert level.keypoints.widths_px().min() >= SIDE - 1e-4
