"""Two folders of pixel-aligned images."""

import numpy as np
import PIL.Image
import pytest

from vpr_dhe.datasets.pairs.aligned import LAYOUT, read_aligned
from vpr_dhe.errors import DatasetError


def write(path, size=(20, 30), grey=0, **options) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    PIL.Image.new("RGB", size, (grey, grey, grey)).save(path, **options)


def test_images_of_one_name_are_paired(tmp_path):
    for number, name in enumerate(("two", "one")):
        write(tmp_path / "a" / f"{name}.jpg", grey=50 + number)
        write(tmp_path / "b" / f"{name}.png", grey=150 + number)
    assert LAYOUT.recognises(tmp_path)
    pairs = read_aligned(tmp_path).pairs
    assert [pair.name for pair in pairs] == ["one", "two"]
    assert [(int(pair.image_a()[0, 0, 0]), int(pair.image_b()[0, 0, 0])) for pair in pairs] == [(51, 151), (50, 150)]
    np.testing.assert_array_equal(pairs[0].homography, np.eye(3))


def test_the_size_is_that_of_the_upright_image(tmp_path):
    exif = PIL.Image.Exif()
    exif[0x0112] = 6
    write(tmp_path / "a" / "one.jpg", (20, 30))
    write(tmp_path / "b" / "one.jpg", (30, 20), exif=exif)
    (pair,) = read_aligned(tmp_path).pairs
    assert pair.image_a().shape == pair.image_b().shape == (30, 20, 3)


def test_what_does_not_fit_is_named(tmp_path):
    write(tmp_path / "a" / "one.png")
    with pytest.raises(DatasetError, match=r"folder .*b does not exist"):
        read_aligned(tmp_path)
    (tmp_path / "b").mkdir()
    with pytest.raises(DatasetError, match=r"folder .*b holds no images"):
        read_aligned(tmp_path)
    write(tmp_path / "b" / "two.png")
    with pytest.raises(DatasetError, match=r"one\.png has no image of the same name in .*b;"):
        read_aligned(tmp_path)
    write(tmp_path / "b" / "one.png")
    with pytest.raises(DatasetError, match=r"two\.png has no image of the same name in .*a;"):
        read_aligned(tmp_path)
    write(tmp_path / "a" / "two.png", (21, 30))
    with pytest.raises(DatasetError, match=r"two\.png has 21 x 30 pixels and .*two\.png 20 x 30"):
        read_aligned(tmp_path)
    write(tmp_path / "a" / "two.jpg")
    with pytest.raises(DatasetError, match="differ only in their extension"):
        read_aligned(tmp_path)
