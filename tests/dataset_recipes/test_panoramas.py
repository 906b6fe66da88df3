"""Pairs of views of panoramas: the homography leads each pixel to the one with the same direction."""

import csv
import sys
from pathlib import Path

import numpy as np
import PIL.Image
import pytest

sys.path.append(str(Path(__file__).parents[2] / "datasets"))
from panoramas import PanoramaPairs, View

COLUMNS = ("file", "place", "visit", "yaw", "pitch", "roll", "hfov", "width", "height")
ROWS = [
    ("a0.jpg", "a", 0, 350, 3, 1, 75, 64, 48),
    ("a1.jpg", "a", 1, 10, -5, -2, 60, 64, 48),
    ("a2.jpg", "a", 1, 90, 0, 0, 75, 64, 48),
    ("a3.jpg", "a", 0, 352, 0, 0, 75, 64, 48),
    ("b0.jpg", "b", 0, 350, 0, 0, 75, 64, 48),
    ("b1.jpg", "b", 1, 350, 0, 0, 75, 64, 48),
]


@pytest.fixture
def pairs(tmp_path):
    with (tmp_path / "views.csv").open("w", newline="") as file:
        csv.writer(file).writerows([COLUMNS, *ROWS])
    paths = {row[0]: tmp_path / row[0] for row in ROWS if row[0] != "b1.jpg"}
    for path in paths.values():
        PIL.Image.new("RGB", (64, 48)).save(path)
    return PanoramaPairs(tmp_path / "views.csv", paths)


def test_views_of_two_visits_with_much_in_common_are_paired(pairs):
    assert len(pairs) == 2  # a0 and a3 with a1, across north; b1 is held out
    assert {pairs.pair(number, np.random.default_rng(0)).places for number in range(2)} == {frozenset({"a"})}


def test_the_homography_keeps_directions(pairs):
    pair = pairs.pair(0, np.random.default_rng(0))
    assert pair.holds_everywhere
    one, other = (View.of(dict(zip(COLUMNS, map(str, row), strict=True)), Path(row[0])) for row in ROWS[:2])
    for x, y in ((10.0, 20.0), (50.0, 5.0)):
        there = pair.homography @ [x, y, 1]
        directions = [one.pixels_to_world @ [x, y, 1], other.pixels_to_world @ (there / there[2])]
        first, second = (direction / np.linalg.norm(direction) for direction in directions)
        np.testing.assert_allclose(first, second, atol=1e-9)


def test_the_middle_of_a_view_lies_at_its_yaw_and_pitch():
    view = View(Path("a.jpg"), "a", 0, 90.0, 0.0, 0.0, 75.0, 65, 49)
    direction = view.pixels_to_world @ [32, 24, 1]
    np.testing.assert_allclose(direction / np.linalg.norm(direction), [1, 0, 0], atol=1e-9)
    above = View(Path("a.jpg"), "a", 0, 0.0, 30.0, 0.0, 75.0, 65, 49).pixels_to_world @ [32, 24, 1]
    np.testing.assert_allclose(above / np.linalg.norm(above), [0, -0.5, np.sqrt(3) / 2], atol=1e-9)
