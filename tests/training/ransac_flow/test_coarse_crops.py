"""Crops that the coarse stage brought together: what is said to remain is what remains."""

from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch
from patches import PatchExtractor, texture

from vpr_dhe.geometry.coordinates import corners
from vpr_dhe.geometry.homography import four_point_homography
from vpr_dhe.images.loading import image_size
from vpr_dhe.records import Size
from vpr_dhe.training.ransac_flow.coarse_crops import CropSettings, coarse_crops
from vpr_dhe.training.ransac_flow.elastic import ElasticPairs, smooth_displacement
from vpr_dhe.training.sources.base import PairSource, TrainingPair
from vpr_dhe.verification.estimators.ransac_flow.network import warp

EXTRACTOR = PatchExtractor()
SETTINGS = CropSettings(image_px=240, crop_px=160)


class Turned(PairSource):
    """Textures seen from a little to the side."""

    knows_homographies, description = True, "textures"

    def __len__(self):
        return 3

    def pair(self, index, random):
        image = texture(400, 320, seed=index)
        square = corners(image_size(image))
        moved = square + torch.from_numpy(random.uniform(-20, 20, (4, 2)))
        matrix = four_point_homography(square, moved).numpy()
        warped = cv2.warpPerspective(image, matrix, image_size(image), borderMode=cv2.BORDER_REFLECT_101)
        return TrainingPair(image, warped, matrix, holds_everywhere=True)


def pairs(source, count=3):
    return [source.pair(index, np.random.default_rng(index)) for index in range(count)]


@pytest.mark.parametrize("source", [Turned(), ElasticPairs(Turned(), 0.02)], ids=["plane", "elastic"])
def test_the_known_flow_brings_source_and_target_together(source):
    batch = coarse_crops(pairs(source), EXTRACTOR, SETTINGS, np.random.default_rng(0))
    assert batch.source.shape == batch.target.shape == (3, 3, 160, 160)
    assert batch.known[:, 16:-16, 16:-16].all()
    inside = batch.covered[:, :, 16:-16, 16:-16] > 0
    before = (batch.source - batch.target).abs().mean(dim=1, keepdim=True)[:, :, 16:-16, 16:-16][inside].mean()
    after = (warp(batch.source, batch.flow_px) - batch.target).abs().mean(dim=1, keepdim=True)
    assert float(after[:, :, 16:-16, 16:-16][inside].mean()) < min(0.02, 0.6 * float(before))


def test_a_distortion_is_told_exactly():
    plain, bent = Turned().pair(0, np.random.default_rng(5)), ElasticPairs(Turned()).pair(0, np.random.default_rng(5))
    assert bent.residual_px is not None
    assert not bent.holds_everywhere
    flow = torch.from_numpy(bent.residual_px).permute(2, 0, 1)[None]
    original = torch.from_numpy(plain.image_a).permute(2, 0, 1)[None].float()
    apart = (warp(original, flow)[0].permute(1, 2, 0).numpy() - bent.image_a).astype(np.float64)[20:-20, 20:-20]
    assert np.abs(apart).mean() < 1.5
    assert np.abs(plain.image_a[20:-20, 20:-20].astype(float) - bent.image_a[20:-20, 20:-20]).mean() > 2


def test_the_flow_is_unknown_where_a_distortion_mirrors_the_border():
    (pair,) = pairs(Turned(), 1)
    height, width = pair.image_a.shape[:2]
    outwards = np.zeros((height, width, 2), np.float32)
    outwards[..., 0] = 80  # a pixel of A comes from 80 px further right
    moved = replace(pair, residual_px=outwards, holds_everywhere=False)
    batch = coarse_crops([moved], EXTRACTOR, replace(SETTINGS, crop_px=160, image_px=160), None)
    unknown = ~batch.known[0]
    # The crop shows A from 40 to 360 of its 400 px, at half of its resolution.
    assert unknown.all(dim=0).tolist() == [20 + column > (399 - 80) / 2 for column in range(160)]
    whole = coarse_crops([pair], EXTRACTOR, replace(SETTINGS, crop_px=160, image_px=160), None)
    assert whole.known.all()


def test_displacements_are_as_large_as_they_should_be_and_smooth():
    moves = np.stack([smooth_displacement(Size(200, 150), 5.0, np.random.default_rng(seed)) for seed in range(20)])
    assert moves.shape == (20, 150, 200, 2)
    assert 3 < moves.std() < 6
    assert np.abs(np.diff(moves, axis=1)).max() < 2


def test_pairs_without_a_coarse_alignment_are_left_out():
    flat = np.full((320, 400, 3), 90, np.uint8)
    unlike = TrainingPair(flat, flat)
    batch = coarse_crops([unlike, *pairs(Turned(), 1)], EXTRACTOR, SETTINGS, np.random.default_rng(0))
    assert len(batch.source) == 1
    nothing = coarse_crops([unlike], EXTRACTOR, SETTINGS, np.random.default_rng(0))
    assert [len(part) for part in nothing] == [0] * 5


def test_what_is_left_out_does_not_change_the_others():
    flat = TrainingPair(np.full((320, 400, 3), 90, np.uint8), np.full((320, 400, 3), 90, np.uint8))
    first, second = pairs(Turned(), 2)
    with_flat = coarse_crops([flat, second], EXTRACTOR, SETTINGS, np.random.default_rng(0))
    with_first = coarse_crops([first, second], EXTRACTOR, SETTINGS, np.random.default_rng(0))
    assert torch.equal(with_flat.target[0], with_first.target[1])


def test_pairs_of_unknown_homography_are_marked():
    (pair,) = pairs(Turned(), 1)
    batch = coarse_crops([TrainingPair(pair.image_a, pair.image_b)], EXTRACTOR, SETTINGS, np.random.default_rng(0))
    assert not batch.known.any()
    assert float(batch.flow_px.abs().max()) == 0
