"""`vpr-dhe index --merge`, and the commands on an index of several folders."""

import csv
import json
import shutil
from pathlib import Path

import pytest

from vpr_dhe.index.place_index import PlaceIndex

QUERY = ("--verifier", "none", "--top-k", 1)


@pytest.fixture
def merged(run, photo_folder, tmp_path) -> Path:
    """Index of two folders of the same name, whose images have the names in both."""
    second = tmp_path / "second" / "photos"
    second.mkdir(parents=True)
    for number in range(6, 12):
        source = photo_folder / ("sub" if number >= 10 else "") / f"{number:02d}.png"
        shutil.move(source, second / f"{number - 6:02d}.png")
    (tmp_path / "positions.csv").write_text("image,latitude,longitude\n03.png,48.5,11.25\n")
    options = ("--model", "sift-vlad", "--codec", "float16")
    assert run("index", photo_folder, "--out", tmp_path / "a", *options)[0] == 0
    code, *_ = run("index", second, "--out", tmp_path / "b", *options, "--positions", tmp_path / "positions.csv")
    assert code == 0
    for index, images in (("a", 6), ("b", 12)):
        code, stdout, stderr = run("index", "--merge", tmp_path / index, "--out", tmp_path / "all")
        assert (code, f"all: {images} images (6 merged)" in stdout) == (0, True)
    assert f"paths of the images in {second} begin with photos/" in stderr
    return tmp_path / "all"


@pytest.mark.parametrize("option", [("--strict",), ("--batch-size", 4), ("--ray", "auto"), ("--max-megapixels", 9)])
def test_options_of_the_extraction_are_refused(run, thumbnail_extractor, tmp_path, option):
    PlaceIndex.create(tmp_path / "a", thumbnail_extractor.spec, tmp_path)
    code, _, stderr = run("index", "--merge", tmp_path / "a", "--out", tmp_path / "all", *option)
    assert (code, f"{option[0]} is for images to extract" in stderr) == (2, True), stderr


def test_commands_on_an_index_of_several_folders(run, merged, photo_folder, tmp_path):
    second, report = tmp_path / "second/photos", tmp_path / "report.html"
    code, stdout, stderr = run("query", merged, second / "03.png", *QUERY, "--format", "json", "--report", report)
    best = json.loads(stdout)["queries"][0]["matches"][0]
    assert (code, best["image"], best["latitude"], "no longer" in stderr) == (0, "photos/03.png", 48.5, False)
    assert report.read_text().count("data:image") == 1
    code, stdout, _ = run("query", merged, second, *QUERY, "--format", "hloc", "--names-relative-to", tmp_path)
    assert (code, stdout.splitlines()[0]) == (0, "second/photos/00.png second/photos/00.png")
    code, stdout, _ = run("query", merged, photo_folder, *QUERY, "--format", "csv")
    assert [row["image"] for row in csv.DictReader(stdout.splitlines())] == [f"{n:02d}.png" for n in range(6)]

    code, stdout, _ = run("check", merged)
    assert (code, f"images in {second}" in stdout) == (0, True)
    assert json.loads(run("check", merged, "--format", "json")[1])["folders"] == [str(photo_folder), str(second)]
    assert run("remove", merged, "photos/05.png", second / "04.png", "05.png")[0] == 0
    code, _, stderr = run("remove", merged, "photos/05.png")
    assert (code, f"or begin with photos/ for {second}" in stderr) == (2, True)

    (second / "00.png").unlink()
    code, stdout, stderr = run("index", second, "--out", merged, "--prune")
    assert (code, "removed 1 missing images, such as photos/00.png" in stderr) == (0, True)
    assert "10 images (2 added, 3 unchanged" in stdout
    code, stdout, _ = run("index", photo_folder, "--out", merged)
    assert (code, "11 images (1 added, 5 unchanged" in stdout) == (0, True)

    code, _, stderr = run("index", tmp_path, "--merge", merged, "--out", tmp_path / "new")
    assert (code, "and IMAGES is for images to extract" in stderr, stderr.count("\n")) == (2, True, 1)
    code, _, stderr = run("index", "--merge", merged, "--out", merged)
    assert (code, "give another index" in stderr, stderr.count("\n")) == (2, True, 1)
    code, _, stderr = run("index", "--merge", tmp_path / "none", "--out", tmp_path / "new")
    assert (code, "does not exist" in stderr) == (2, True)
    assert not (tmp_path / "new").exists()
