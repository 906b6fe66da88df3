"""Pair sets as something to learn from: with their own homographies, or with those that a method finds."""

import cv2
import numpy as np
import pytest
import torch

from vpr_dhe.errors import DatasetError
from vpr_dhe.records import Size
from vpr_dhe.synthetic_town.town import SyntheticTown, write_town
from vpr_dhe.training.weak_descriptor.pair_sets import open_pair_data
from vpr_dhe.verification.estimators.base import Homographies, HomographyEstimator

SIZE = Size(64, 48)


@pytest.fixture
def pairs(tmp_path):
    """Twelve pairs in the layout of two folders, of which the identity is right."""
    random = np.random.default_rng(0)
    for side in ("a", "b"):
        (tmp_path / "pairs" / side).mkdir(parents=True)
        for number in range(12):
            image = cv2.resize(random.integers(0, 256, (6, 8, 3), np.uint8), SIZE, interpolation=cv2.INTER_CUBIC)
            cv2.imwrite(str(tmp_path / "pairs" / side / f"{number:02d}.png"), image)
    return tmp_path / "pairs"


class Shifts(HomographyEstimator):
    """Finds a shift by one pixel more every time it is asked, and never in every third pair."""

    name = "shifts"
    uses_images = True

    def __init__(self):
        self.asked = 0

    def estimate(self, query, candidates):
        self.asked += 1
        matrix = np.eye(3)
        matrix[0, 2] = self.asked
        return Homographies.joined([None if self.asked % 3 == 0 else matrix for _ in candidates])


def test_homographies_are_those_of_the_set(pairs):
    data = open_pair_data([str(pairs)], SIZE)
    assert (len(data.training), len(data.validation)) == (10, 2)
    assert data.training.knows_homographies
    pair = data.training.pair(0, np.random.default_rng(0))
    assert np.array_equal(pair.homography, np.eye(3))
    assert pair.places == {"01"}
    assert "12 pairs" in data.training.description


def test_or_are_found_once_for_each_pair(pairs):
    estimator = Shifts()
    data = open_pair_data([str(pairs)], SIZE, estimator)
    random = np.random.default_rng(0)
    found = [data.training.pair(index, random).homography for index in (0, 1, 2, 0)]
    assert estimator.asked == 3
    assert [None if one is None else one[0, 2] for one in found] == [1, 2, None, 1]
    assert not data.training.knows_homographies
    assert data.training.description.endswith("aligned by shifts")


def test_photos_are_pairs_as_well(pairs):
    data = open_pair_data([str(pairs / "a"), str(pairs)], SIZE)
    pair = data.training.pair(0, np.random.default_rng(0))
    assert pair.image_a.shape == (48, 64, 3)
    assert torch.from_numpy(pair.homography).isfinite().all()
    assert len(data.training) > 10


def test_what_is_no_set_of_aligned_pairs_is_explained(pairs, tmp_path):
    for path in sorted(pairs.rglob("*.png"))[1:]:
        if path.stem != "00":
            path.unlink()
    with pytest.raises(DatasetError, match="at least two are needed"):
        open_pair_data([str(pairs)], SIZE)
    town = SyntheticTown(seed=1, streets=2)
    database = town.database_cameras()[:6]
    write_town(tmp_path / "town", town, database, town.query_cameras(2, 1, database))
    (tmp_path / "town/images/test").rename(tmp_path / "town/images/train")
    with pytest.raises(DatasetError, match="is a place data set, whose images are not aligned"):
        open_pair_data([str(tmp_path / "town")], SIZE)
