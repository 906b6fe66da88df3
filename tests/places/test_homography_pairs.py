"""The table of image pairs."""

import numpy as np
import PIL.Image
import pytest

from vpr_dhe.errors import DatasetError
from vpr_dhe.places.homography_pairs import read_homography_pairs

HEADER = "name,image_a,image_b,h00,h01,h02,h10,h11,h12,h20,h21,h22\n"


def test_pairs_are_read_and_normalised(tmp_path):
    for name in ("a.png", "b.png"):
        PIL.Image.new("RGB", (20, 20)).save(tmp_path / name)
    (tmp_path / "pairs.csv").write_text(HEADER + "one,a.png,b.png,2,0,4,0,2,6,0,0,2\n")
    (pair,) = read_homography_pairs(tmp_path)
    assert (pair.name, pair.image_a.name, pair.image_b.name) == ("one", "a.png", "b.png")
    np.testing.assert_array_equal(pair.homography, [[1, 0, 2], [0, 1, 3], [0, 0, 1]])


def test_what_is_missing_is_named(tmp_path):
    with pytest.raises(DatasetError, match=r"pairs\.csv does not exist"):
        read_homography_pairs(tmp_path)
    (tmp_path / "pairs.csv").write_text("name,image_a\nx,y\n")
    with pytest.raises(DatasetError, match="no column image_b, h00"):
        read_homography_pairs(tmp_path)
    (tmp_path / "pairs.csv").write_text(HEADER + "one,a.png,b.png,1,0,0,0,1,0,0,0,1\n")
    with pytest.raises(DatasetError, match=r"a\.png is named"):
        read_homography_pairs(tmp_path)
