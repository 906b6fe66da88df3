"""Which layout a folder shows, and what is said when it shows none."""

from pathlib import Path

import numpy as np
import PIL.Image
import pytest

from vpr_dhe.datasets.pairs import PAIR_LAYOUTS, read_pairs, recognise_pairs
from vpr_dhe.datasets.pairs.base import HomographyPair, PairSet
from vpr_dhe.errors import BadInputError, DatasetError


def picture(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    PIL.Image.new("RGB", (20, 20)).save(path)


@pytest.fixture
def pairs_folder(tmp_path):
    for name in ("a", "b"):
        picture(tmp_path / name / "one.png")
    return tmp_path


def test_layouts_are_recognised_by_the_names_in_a_folder(pairs_folder):
    assert recognise_pairs(pairs_folder) == "aligned"
    (pairs_folder / "v_one").mkdir()
    (pairs_folder / "v_one" / "H_1_2").touch()
    assert recognise_pairs(pairs_folder) == "hpatches"
    (pairs_folder / "pairs.csv").touch()
    assert recognise_pairs(pairs_folder) == "pairs"


def test_what_shows_no_layout_is_not_recognised(pairs_folder):
    assert recognise_pairs(pairs_folder / "a") is None
    assert recognise_pairs(pairs_folder / "nowhere") is None
    assert recognise_pairs(pairs_folder / "a" / "one.png") is None


def test_pairs_are_read_by_the_name_of_a_layout_or_by_none(pairs_folder):
    assert [pair.name for pair in read_pairs(pairs_folder).pairs] == ["one"]
    assert [pair.name for pair in read_pairs(pairs_folder, "warps").pairs] == ["a/one.png", "b/one.png"]


def test_what_cannot_be_read_is_said_in_one_sentence(pairs_folder):
    with pytest.raises(BadInputError, match="unknown layout 'sintel'; available: auto, pairs, hpatches, aligned"):
        read_pairs(pairs_folder, "sintel")
    with pytest.raises(DatasetError, match="nowhere does not exist"):
        read_pairs(pairs_folder / "nowhere")
    with pytest.raises(DatasetError, match="is a file; expected a folder"):
        read_pairs(pairs_folder / "a" / "one.png")
    with pytest.raises(DatasetError, match=r"none of the layouts of image pairs; .*pairs\.csv next to"):
        read_pairs(pairs_folder / "a")


@pytest.mark.parametrize("name", PAIR_LAYOUTS)
def test_an_empty_folder_is_refused_by_every_layout(tmp_path, name):
    with pytest.raises(DatasetError):
        read_pairs(tmp_path, name)


def test_a_set_needs_pairs_with_names_of_their_own():
    pair = HomographyPair(
        "one", "", lambda: np.zeros((1, 1, 3), np.uint8), lambda: np.zeros((1, 1, 3), np.uint8), np.eye(3)
    )
    with pytest.raises(DatasetError, match="holds no image pairs"):
        PairSet("set", "none", ())
    with pytest.raises(DatasetError, match="2 pairs named 'one'"):
        PairSet("set", "none", (pair, pair))


@pytest.mark.data
@pytest.mark.parametrize(
    ("folder", "layout", "count"),
    [
        ("homography_pairs", "pairs", 8),
        ("multimodal/rgb_nir", "pairs", 100),
        ("multimodal/visible_thermal", "aligned", 180),
        ("multimodal/aerial_map", "aligned", 450),
    ],
)
def test_the_sets_resources_are_read(real_images, folder, layout, count):
    assert recognise_pairs(real_images / folder) == layout
    pairs = read_pairs(real_images / folder).pairs
    assert len(pairs) == count
    assert pairs[0].image_a().ndim == pairs[0].image_b().ndim == 3
