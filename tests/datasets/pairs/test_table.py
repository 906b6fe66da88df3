"""The table of image pairs."""

import numpy as np
import PIL.Image
import pytest

from vpr_dhe.datasets.pairs.table import read_table
from vpr_dhe.errors import DatasetError

COLUMNS = "image_a,image_b,h00,h01,h02,h10,h11,h12,h20,h21,h22"
HEADER = f"name,{COLUMNS}\n"


@pytest.fixture
def folder(tmp_path):
    for name, grey in (("a.png", 10), ("b.png", 20)):
        PIL.Image.new("RGB", (20, 20), (grey, grey, grey)).save(tmp_path / name)
    return tmp_path


def test_pairs_are_read_and_normalised(folder):
    (folder / "pairs.csv").write_text(HEADER + "one,a.png,b.png,2,0,4,0,2,6,0,0,2\n")
    pairs = read_table(folder)
    (pair,) = pairs.pairs
    assert (pairs.name, pair.name, pair.group) == (folder.name, "one", "")
    assert (pair.image_a()[0, 0, 0], pair.image_b()[0, 0, 0]) == (10, 20)
    np.testing.assert_array_equal(pair.homography, [[1, 0, 2], [0, 1, 3], [0, 0, 1]])


def test_a_pair_without_a_name_is_called_by_its_images(folder):
    row = "a.png,b.png,1,0,0,0,1,0,0,0,1\n"
    (folder / "pairs.csv").write_text("\ufeff" + COLUMNS + "\n" + row + row.replace("a.png", "b.png", 1), "utf-8")
    assert [pair.name for pair in read_table(folder).pairs] == ["a.png b.png", "b.png b.png"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, r"pairs\.csv does not exist"),
        ("", "no column image_a, image_b, h00"),
        ("name,image_a\nx,y\n", "no column image_b, h00"),
        (HEADER, "holds no image pairs"),
        (HEADER + "one,c.png,b.png,1,0,0,0,1,0,0,0,1\n", r"c\.png does not exist, but is named by .*line 2"),
        (HEADER + "one,a.png,,1,0,0,0,1,0,0,0,1\n", "line 2"),
        (HEADER + "one,a.png,b.png,1,0,0,0,1,0,0,0\n", r"line 2: expected a number in each"),
        (HEADER + "one,a.png,b.png,1,0,0,0,1,0,0,0,x\n", r"line 2: expected a number in each"),
        (HEADER + "one,a.png,b.png,1,0,0,0,1,0,0,0,nan\n", "line 2: the homography must be finite"),
        (HEADER + "one,a.png,b.png,1,0,0,0,1,0,1,1,0\n", "its last entry not 0"),
        (HEADER + "one,a.png,b.png,1,0,0,2,0,0,0,0,1\n", "line 2: the homography is singular"),
        (HEADER + "one,a.png,b.png,1,0,0,0,1,0,0,0,1\n" * 2, "2 pairs named 'one'"),
        (HEADER + "one,a.png,b.png,1,0,0,0,1,0,0,0,1,extra\n", "line 2: more cells than the header has"),
        ("\udcff", "is not a table"),
    ],
)
def test_what_is_wrong_is_named(folder, text, message):
    if text is not None:
        (folder / "pairs.csv").write_text(text, "utf-8", "surrogateescape")
    with pytest.raises(DatasetError, match=message):
        read_table(folder)
