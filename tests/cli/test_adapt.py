"""`vpr-dhe adapt`, and `--adapt` of the other commands."""

import json
from dataclasses import replace
from pathlib import Path

import PIL.Image
import pytest

from tests.cli.test_commands import call, vpr_dhe
from tests.index.adaptation.towns import filled, town
from vpr_dhe.index.manifest import Settings
from vpr_dhe.index.place_index import PlaceIndex
from vpr_dhe.models.catalogue import open_model
from vpr_dhe.models.names import DEFAULT_MODEL

VECTORS, RECORDS = town(100, 6)


@pytest.fixture
def index(tmp_path) -> Path:
    return filled(tmp_path / "index", VECTORS, RECORDS).folder


@pytest.fixture
def photos(tmp_path) -> Path:
    folder = tmp_path / "photos"
    folder.mkdir()
    for number in range(3):
        PIL.Image.effect_noise((80, 60), 40 + number).save(folder / f"{number}.png")
    return folder


@pytest.mark.slow
def test_it_tells_what_it_tried_and_can_be_undone(index):
    lines = vpr_dhe("adapt", index).stdout.splitlines()
    assert lines[0].startswith("adapted by whitening")
    assert lines[1].startswith("  as extracted: R@1 ")
    assert lines[2].startswith("  centring: R@1 ")
    assert PlaceIndex.open(index).manifest.adaptation_name
    checked = call("check", index).stdout.splitlines()
    assert checked[1:] == lines
    assert "searched as extracted" in call("adapt", index, "--adapt", "off").stdout
    assert PlaceIndex.open(index).manifest.adaptation is None
    assert json.loads(call("check", index, "--format", "json").stdout)["adaptation"] is None


def test_json_holds_the_same(index):
    report = json.loads(call("adapt", index, "--format", "json").stdout)
    assert report["steps"][0] == "whitening"
    assert report["source"] == "positions"
    assert {trial["step"] for trial in report["trials"]} == {"centring", "whitening", "hubs"}
    assert json.loads(call("adapt", index, "--adapt", "off", "--format", "json").stdout) is None


def test_a_picture_shows_a_hub(index, tmp_path):
    for record in RECORDS:
        PIL.Image.new("RGB", (80, 60), (90, 120, 150)).save(tmp_path / record.path)
    call("adapt", index, "--picture", tmp_path / "examples.png")
    with PIL.Image.open(tmp_path / "examples.png") as picture:
        assert picture.width == 4 * 320 + 3 * 12


def test_wrong_arguments_are_refused_in_one_sentence(index, tmp_path):
    assert "does not exist" in call("adapt", tmp_path / "none", expect=2).stderr
    assert "auto" in call("adapt", index, "--adapt", "maybe", expect=2).stderr
    assert "searched as extracted" in call("adapt", index, "--adapt", "off").stdout


def test_a_new_index_decides_once_and_says_when_it_has_doubled(photos):
    out = photos.parent / "own"
    first = call("index", photos, "--out", out)
    assert "vectors are searched as extracted" in first.stderr
    report = PlaceIndex.open(out).manifest.adaptation.report
    assert report.images == 3
    assert "searched as extracted" not in call("index", photos, "--out", out).stderr
    for number in range(3, 6):
        PIL.Image.effect_noise((80, 60), 40 + number).save(photos / f"{number}.png")
    assert f"run `vpr-dhe adapt {out}`" in call("index", photos, "--out", out).stderr
    assert PlaceIndex.open(out).manifest.adaptation.report == report


def test_index_can_be_told_not_to(photos):
    out = photos.parent / "own"
    assert "extracted:" not in call("index", photos, "--out", out, "--adapt", "off").stderr
    manifest = PlaceIndex.open(out).manifest
    assert (manifest.adaptation, manifest.settings.adapt, manifest.settings.rank_by) == (None, "off", "evidence")
    call("index", photos, "--out", out, "--adapt", "auto")
    assert PlaceIndex.open(out).manifest.adaptation is not None
    call("index", photos, "--out", out, "--adapt", "off")
    assert PlaceIndex.open(out).manifest.adaptation is None


def test_published_weights_answer_as_published(photos, tmp_path):
    file = tmp_path / "published.safetensors"
    replace(open_model(DEFAULT_MODEL), published=True).save(file)
    out = photos.parent / "own"
    call("index", photos, "--out", out, "--model", file)
    settings = PlaceIndex.open(out).manifest.settings
    assert (settings.adapt, settings.rank_by) == ("off", "inliers")


def test_a_first_run_cut_short_keeps_its_options(photos, monkeypatch):
    from vpr_dhe.features.sift_vlad import SiftVladExtractor

    out = photos.parent / "own"

    def interrupt(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(SiftVladExtractor, "extract", interrupt)
        options = ("--codec", "float16", "--index-type", "hnsw", "--rank-by", "inliers", "--adapt", "off")
        stopped = call("index", photos, "--out", out, "--model", "sift-vlad", *options, expect=1)
        assert "0 images are safe" in stopped.stderr
    call("index", photos, "--out", out)
    manifest = PlaceIndex.open(out).manifest
    assert manifest.settings == Settings("float16", "hnsw", "inliers", "off")
    assert (manifest.spec.model, manifest.count) == ("sift-vlad", 3)
