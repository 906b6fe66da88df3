"""Choice of codecs on the command line: what `index`, `compact` and `check` say of it."""

import json
from dataclasses import replace

import pytest

from vpr_dhe.datasets.standard import read_split
from vpr_dhe.index.checking import check
from vpr_dhe.index.manifest import publish
from vpr_dhe.index.place_index import PlaceIndex

pytestmark = pytest.mark.usefixtures("usual_measurements")


@pytest.fixture
def automatic(photo_folder, tmp_path, thumbnail_extractor) -> PlaceIndex:
    index = PlaceIndex.create(tmp_path / "index", thumbnail_extractor.spec, photo_folder)
    index.add(read_split(photo_folder).records, thumbnail_extractor)
    return index


def as_of_before(index: PlaceIndex) -> None:
    """Rewrite the manifest as one whose codec was chosen by the rule of before."""
    codec = index.manifest.codec
    assert codec is not None
    publish(replace(index.manifest, codec=replace(codec, agreement={"float16": 1.0}, trials=None)), index.folder)


def test_an_index_of_before_keeps_its_codec_and_check_says_how_to_choose_again(automatic, run):
    as_of_before(automatic)
    before = automatic.manifest.codec
    code, stdout, _ = run("check", automatic.folder)
    recommended = f"`vpr-dhe compact {automatic.folder} --codec auto`"
    assert (code, stdout.count(recommended)) == (0, 1)
    assert json.loads(run("check", automatic.folder, "--format", "json")[1])["codec"]["outdated"] is True
    automatic.refresh()
    automatic.compact()
    assert automatic.manifest.codec.name == before.name
    assert check(automatic.folder).codec_is_outdated

    code, stdout, errors = run("compact", automatic.folder, "--codec", "auto")
    assert (code, errors.count("local maps are stored as float16; order kept and inliers changed")) == (0, 1)
    assert recommended not in run("check", automatic.folder)[1]
    assert json.loads(run("check", automatic.folder, "--format", "json")[1])["codec"]["outdated"] is False


def test_index_prints_what_it_measured_once(photo_folder, tmp_path, run):
    arguments = ("index", photo_folder, "--out", tmp_path / "index", "--device", "cpu")
    code, _, errors = run(*arguments)
    lines = [line for line in errors.splitlines() if line.startswith("local maps are stored as ")]
    assert (code, len(lines)) == (0, 1)
    assert all(name in lines[0] for name in ("magsac: float16 ", " int8 ", " pca64-int8 ", " binary "))
    assert lines[0] in run("check", tmp_path / "index")[1]
    assert "local maps are stored as" not in run(*arguments)[2]
