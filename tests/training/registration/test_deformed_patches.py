"""Aligned photos and the patches made of them: known homographies, fair parts, and nothing of the test."""

import numpy as np
import PIL.Image
import pytest
import torch
from aligned_folder import write_aligned_pairs

from vpr_dhe.datasets.pairs import read_pairs
from vpr_dhe.errors import DatasetError
from vpr_dhe.geometry.warping import lands_inside, warp
from vpr_dhe.records import Size
from vpr_dhe.training.registration.aligned import open_aligned, shared_part
from vpr_dhe.training.registration.deformed_patches import PatchBatches, image_side_px
from vpr_dhe.training.sources.base import Draws
from vpr_dhe.training.stage import Turn
from vpr_dhe.verification.estimators.cross_modal.registration.base import inverse_homographies_of

SIDE = 32


@pytest.fixture
def folder(tmp_path):
    write_aligned_pairs(tmp_path / "pairs", 12, cells=6)
    return tmp_path / "pairs"


def test_the_homography_brings_the_patches_together(folder):
    """A is the negative of B with its channels swapped, so where both show the same, they add up to white."""
    data = open_aligned(folder, image_side_px(SIDE))
    batch = PatchBatches(Draws(data.training, 0), SIDE, 4).batch(Turn(0, 0, 1))
    assert batch.patches_a.shape == (4, 3, SIDE, SIDE)
    assert batch.images_a.shape == (4, 3, 48, 48)
    assert batch.displacements.abs().max() <= 8
    back = inverse_homographies_of(batch.displacements, Size(SIDE, SIDE))
    brought = warp(batch.patches_a, back, Size(SIDE, SIDE))
    inside = lands_inside(back, Size(SIDE, SIDE), Size(SIDE, SIDE))[:, None].expand_as(brought)
    error = (brought.flip(1) + batch.patches_b - 1).abs()[inside].mean()
    apart = (batch.patches_a.flip(1) + batch.patches_b - 1).abs().mean()
    assert error < 0.02
    assert apart > 0.1


def test_batches_depend_on_the_turn_alone(folder):
    data = open_aligned(folder, image_side_px(SIDE))
    batches = [PatchBatches(Draws(data.training, 0), SIDE, size) for size in (2, 4)]
    halves = [batches[0].batch(Turn(3, process, 2)) for process in range(2)]
    whole = batches[1].batch(Turn(3, 0, 1))
    for name in whole._fields:
        assert torch.equal(torch.cat([getattr(half, name) for half in halves]), getattr(whole, name))
    assert not torch.equal(whole.displacements, batches[1].batch(Turn(4, 0, 1)).displacements)


def test_every_tenth_pair_is_held_out_or_the_part_val_is(folder, tmp_path):
    data = open_aligned(folder, 48)
    assert (len(data.training), len(data.validation)) == (10, 2)
    learned, kept = (
        {name for index in range(len(part)) for name in part.pair(index, np.random.default_rng(0)).places}
        for part in data
    )
    assert not learned & kept
    for part, count in (("train", 3), ("val", 2), ("test", 4)):
        write_aligned_pairs(tmp_path / "parts" / part, count)
    data = open_aligned(tmp_path / "parts", 48)
    assert (len(data.training), len(data.validation)) == (3, 2)
    assert data.training.description == "3 pairs of parts"


def test_validation_is_the_same_every_time_and_training_is_not(folder):
    data = open_aligned(folder, 48)
    photos = [[part.pair(0, np.random.default_rng(seed)).image_a for seed in range(2)] for part in data]
    assert not np.array_equal(*photos[0])
    assert np.array_equal(*photos[1])


def test_too_few_pairs_are_refused(tmp_path):
    write_aligned_pairs(tmp_path / "pairs", 1)
    with pytest.raises(DatasetError, match="contains one pair; at least two"):
        open_aligned(tmp_path / "pairs", 48)


def test_pairs_of_a_table_are_brought_together_first(tmp_path):
    rng = np.random.default_rng(0)
    scene = PIL.Image.fromarray(rng.integers(0, 256, (16, 16, 3), np.uint8)).resize(
        (160, 160), PIL.Image.Resampling.BICUBIC
    )
    scene.crop((0, 0, 100, 90)).save(tmp_path / "a.png")
    scene.crop((20, 10, 140, 100)).save(tmp_path / "b.png")
    (tmp_path / "pairs.csv").write_text(
        "image_a,image_b,h00,h01,h02,h10,h11,h12,h20,h21,h22\na.png,b.png,1,0,-20,0,1,-10,0,0,1\n"
    )
    photos = shared_part(read_pairs(tmp_path).pairs[0])
    assert photos.a.shape == photos.b.shape
    assert np.array_equal(photos.a, photos.b)
    # Shared are 80 x 80 of B's 120 x 90: in B's aspect, 80 x 60.
    height, width = photos.a.shape[:2]
    assert 77 <= width <= 80
    assert 57 <= height <= 61


@pytest.mark.parametrize("shift_px", [5000, 110])
def test_pairs_that_share_next_to_nothing_are_named(tmp_path, shift_px):
    for side in ("a", "b"):
        PIL.Image.new("RGB", (120, 90)).save(tmp_path / f"{side}.png")
    (tmp_path / "pairs.csv").write_text(
        f"name,image_a,image_b,h00,h01,h02,h10,h11,h12,h20,h21,h22\nfar,a.png,b.png,1,0,{shift_px},0,1,0,0,0,1\n"
    )
    with pytest.raises(DatasetError, match="pair far: by its homography the images share less than 16 x 16 pixels"):
        shared_part(read_pairs(tmp_path).pairs[0])
