"""Images of 16 bits on the command line: --bit-depth, evaluate, loops of a bag, and check."""

import json
from functools import cache

import cv2
import numpy as np
import PIL.Image
import pytest
from recordings import IMAGES, START_NS, Bag

from vpr_dhe.index.place_index import PlaceIndex
from vpr_dhe.synthetic_town.town import SyntheticTown

TOWN = SyntheticTown(0)
CAMERAS = TOWN.database_cameras()


@cache
def grey(seed, side=160):
    """View of a street, because smooth noise is taken for clouds."""
    view = TOWN.render(CAMERAS[seed * len(CAMERAS) // 8])
    return cv2.resize(view, (side, side), interpolation=cv2.INTER_AREA).mean(axis=2) / 255


def radiometric(values):
    return np.rint(7300 + 800 * values).astype(np.uint16)


@pytest.fixture(scope="module")
def film(tmp_path_factory):
    root = tmp_path_factory.mktemp("film")
    for how, convert in (("8", lambda values: np.uint8(255 * values)), ("16", radiometric)):
        for side in ("database", "queries"):
            (root / how / side).mkdir(parents=True)
        for seed in range(8):
            PIL.Image.fromarray(convert(grey(seed))).save(root / how / f"database/{seed}.png")
            PIL.Image.fromarray(convert(grey(seed)[10:140, 15:150])).save(root / how / f"queries/{seed}.png")
    return root


def test_radiometric_images_are_found_as_those_of_8_bits_are(run, film, tmp_path):
    recall = {}
    for how in ("8", "16"):
        out = tmp_path / f"{how}.json"
        options = ("--frame-tolerance", 0, "--rerank", 8, "--recall-at", 1, "--cache", "none", "--out", out)
        code, _, errors = run("evaluate", film / how, *options)
        assert code == 0, errors
        recall[how] = json.loads(out.read_text())["recall"]
    assert recall["8"]["reranked"] == recall["16"]["reranked"]
    # Grey levels are chosen by the images, so one of the eight queries may differ.
    assert abs(recall["8"]["retrieval"]["1"] - recall["16"]["retrieval"]["1"]) <= 12.5


def test_the_bit_depth_is_stored_checked_and_kept(run, film, tmp_path):
    index = tmp_path / "index"
    for text, complaint in (("6", "the bit depth is '6'"), ("9:3", "expected auto, 8 to 16 bits")):
        code, _, errors = run("index", film / "16/database", "--out", index, "--bit-depth", text)
        assert (code, complaint in errors) == (2, True)
    assert run("index", film / "16/database", "--out", index, "--bit-depth", "7200:8200", "--codec", "float16")[0] == 0
    assert PlaceIndex.open(index).manifest.levels == (7200, 8200)
    assert "16-bit images: values from 7200 to 8200 become 8 bits" in run("check", index)[1]
    assert json.loads(run("check", index, "--format", "json")[1])["grey_levels"] == [7200, 8200]
    code, _, errors = run("index", film / "16/database", "--out", index, "--bit-depth", "12")
    assert (code, "into a new folder" in errors) == (2, True)


def test_loops_read_16_bits_by_the_first_frames(run, tmp_path):
    bag = Bag(tmp_path / "thermal-db3")
    for number in range(12):
        bag.image(START_NS + number * 10**9, radiometric(grey(number % 6)), "16UC1")
    bag.write()
    options = ("--ignore-seconds", 2, "--rerank", 6, "--index", tmp_path / "way")
    code, stdout, errors = run("loops", "--bag", tmp_path / "thermal-db3", "--topic", IMAGES, *options)
    assert (code, "blank" in errors) == (0, False), errors
    assert {(loop["query"][-6:], loop["image"][-6:]) for loop in map(json.loads, stdout.splitlines())} >= {
        ("11.jpg", "05.jpg")
    }
    low, high = PlaceIndex.open(tmp_path / "way").manifest.levels
    assert 7000 < low <= 7300
    assert 8100 <= high < 8300
