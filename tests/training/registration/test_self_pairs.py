"""Photos paired with themselves."""

import numpy as np
import pytest
from aligned_folder import write_aligned_pairs

from vpr_dhe.errors import DatasetError
from vpr_dhe.training.registration.self_pairs import open_self_pairs

SIDE = 48


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data") / "photos"
    write_aligned_pairs(folder, 6)
    return folder


def correlation(pair):
    """Of their brightness."""
    return np.corrcoef(*(image.mean(axis=2).ravel() for image in (pair.image_a, pair.image_b)))[0, 1]


def test_both_images_show_the_same_in_lights_and_contrasts_of_their_own(photos):
    learned = open_self_pairs(photos, SIDE).training
    pair = learned.pair(0, np.random.default_rng(4))
    assert pair.image_a.shape == pair.image_b.shape == (SIDE, SIDE, 3)
    assert not np.array_equal(pair.image_a, pair.image_b)
    assert np.array_equal(pair.homography, np.eye(3))
    found = [correlation(learned.pair(0, np.random.default_rng(seed))) for seed in range(16)]
    assert max(found) > 0.8
    assert min(found) < -0.3
    again, other = (learned.pair(0, np.random.default_rng(seed)) for seed in (4, 5))
    assert np.array_equal(pair.image_a, again.image_a)
    assert not np.array_equal(pair.image_a, other.image_a)


def test_every_tenth_photo_is_held_out_or_the_part_val(photos, tmp_path):
    learned, kept = open_self_pairs(photos, SIDE)
    assert (len(learned), len(kept)) == (10, 2)
    write_aligned_pairs(tmp_path / "parts/train", 2)
    write_aligned_pairs(tmp_path / "parts/val", 1)
    learned, kept = open_self_pairs(tmp_path / "parts", SIDE)
    assert (len(learned), len(kept)) == (4, 2)
    assert learned.description == "4 photos of parts in random contrasts"


def test_one_photo_is_too_few(photos, tmp_path):
    (tmp_path / "one").mkdir()
    (tmp_path / "one/photo.png").write_bytes((photos / "a/000.png").read_bytes())
    with pytest.raises(DatasetError, match="one photo; at least two are needed"):
        open_self_pairs(tmp_path / "one", SIDE)


def test_aligned_pairs_join_the_photos_as_about_a_tenth(photos, tmp_path):
    write_aligned_pairs(tmp_path / "pairs", 1)
    learned, kept = open_self_pairs(photos, SIDE, tmp_path / "pairs")
    assert (len(learned), len(kept)) == (11, 2)
    assert learned.description.endswith("; 1 pairs of pairs, 1 times")
    assert learned.pair(10, np.random.default_rng(0)).image_a.shape == (SIDE, SIDE, 3)
