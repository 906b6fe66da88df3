"""Blank images on the command line: named, unknown, without inliers, and no end of any loop."""

import json
import shutil

import numpy as np
import PIL.Image
import pytest

from tests.shared.blanks import BLANKS, noise
from tests.shared.patches import texture
from vpr_dhe.index.place_index import PlaceIndex

BLANK_NUMBERS = [0, 1, 2, 9, 10, 11]


@pytest.fixture(scope="module")
def way(tmp_path_factory):
    """Textured frames between dark and white ones, none of which is a place seen before."""
    folder = tmp_path_factory.mktemp("way")
    for number in range(12):
        bright = 4 + 231 * (number % 2)
        image = noise(bright, 2, seed=number) if number in BLANK_NUMBERS else texture(384, 288, seed=number)
        PIL.Image.fromarray(image).save(folder / f"{number:03d}.jpg", quality=90)
    return folder


@pytest.mark.parametrize("verifier", ["magsac", "none"])
def test_blank_frames_are_named_and_close_no_loop(run, way, verifier):
    options = ("--ignore-frames", 3, "--min-probability", 0.3, "--verifier", verifier)
    code, stdout, errors = run("loops", way, *options)
    assert (code, stdout) == (0, "")
    named = [line.split()[0] for line in errors.splitlines() if "is blank" in line]
    assert named == [f"{number:03d}.jpg" for number in BLANK_NUMBERS]


def test_a_blank_photo_has_no_place(run, way, tmp_path):
    code, _, errors = run("index", way, "--out", tmp_path / "index", "--codec", "binary")
    named = [f"{number:03d}.jpg" for number in BLANK_NUMBERS]
    assert (code, f"blank, with too little texture to match: {', '.join(named)}" in errors) == (0, True), errors
    queries, report = tmp_path / "queries", tmp_path / "report.html"
    queries.mkdir()
    PIL.Image.fromarray(BLANKS["shaded wall"]).save(queries / "blank.png")
    shutil.copy(way / "005.jpg", queries / "shown.jpg")
    for options in (("--format", "json", "--sequence"), ("--format", "json", "--report", report)):
        code, stdout, errors = run("query", tmp_path / "index", queries, "--top-k", 12, *options)
        assert (code, errors.count(f"{queries / 'blank.png'} is blank: ")) == (0, 1)
        blank, shown = json.loads(stdout)["queries"]
        assert (blank["known"], blank["blank"], blank["position_estimate"]) == (False, True, None)
        assert {(match["inliers"], match["homography"] is None) for match in blank["matches"]} == {(0, True)}
        inliers = {match["image"]: match["inliers"] for match in shown["matches"]}
        assert (shown["known"], "blank" in shown, shown["matches"][0]["image"]) == (None, False, "005.jpg")
        assert all(inliers[name] == 0 for name in named)
    assert "too little texture to match" in report.read_text()
    stored = PlaceIndex.open(tmp_path / "index")
    maps = stored.snapshot.local_maps(np.array(stored.ids))
    empty = [stored.image(int(id)).path for id, cells in zip(stored.ids, maps, strict=True) if not cells.any()]
    assert sorted(empty) == named
    titles = [
        run("query", tmp_path / "index", queries / name)[1].splitlines()[0] for name in ("blank.png", "shown.jpg")
    ]
    assert ["unknown place, because the image is blank" in title for title in titles] == [True, False]
