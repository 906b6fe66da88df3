"""Matchers of other packages as verifiers of all commands, by a package that stands for vismatch."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import fake_vismatch
import pytest

from vpr_dhe.cli.shared.options import complete_verifier
from vpr_dhe.datasets.standard import read_split
from vpr_dhe.features.extractor import load_extractor
from vpr_dhe.index.place_index import PlaceIndex
from vpr_dhe.synthetic_town.town import SyntheticTown, write_town


@pytest.fixture(scope="module")
def town(tmp_path_factory) -> Path:
    """A town of six photos and one query, and an index of them."""
    folder = tmp_path_factory.mktemp("matchers")
    town = SyntheticTown(0, streets=2)
    database = town.database_cameras()[:6]
    write_town(folder / "town", town, database, town.query_cameras(1, database=database))
    (folder / "town/images/test/database").rename(folder / "photos")
    (folder / "town/images/test/database").symlink_to(folder / "photos")
    first = min((folder / "photos").iterdir())
    shutil.copy(first, folder / "a.jpg")
    shutil.copy(first, folder / "b.jpg")
    extractor = load_extractor("sift-vlad")
    index = PlaceIndex.create(folder / "my-index", extractor.spec, folder / "photos", codec="float16")
    index.add(read_split(folder / "photos").records, extractor)
    return folder


@pytest.fixture(autouse=True)
def _installed(tmp_path, monkeypatch, town) -> None:
    fake_vismatch.install(tmp_path / "site", monkeypatch)
    monkeypatch.chdir(town)


def test_query(run):
    options = ("--verifier", "vismatch:sift", "--rerank", 11, "--format", "json")
    code, out, err = run("query", "my-index", "a.jpg", *options)
    document = json.loads(out)
    best = document["queries"][0]["matches"][0]
    assert (code, document["verifier"]) == (0, "vismatch:sift")
    assert best["inliers"] == best["score"] > 20
    assert [len(row) for row in best["homography"]] == [3, 3, 3]
    assert "vismatch:sift takes seconds per candidate, and --rerank is 11; about 10 are usual" in err


def test_evaluate(run):
    options = ("--model", "sift-vlad", "--adapt", "off", "--rerank", 2, "--cache", "none")
    code, out, err = run("evaluate", "town", "--verifier", "vismatch:sift", *options)
    assert code == 0, err
    assert "vismatch:sift, top 2" in out


def test_align(run):
    code, out, _ = run("align", "a.jpg", "b.jpg", "--method", "vismatch:sift", "--format", "json")
    aligned = json.loads(out)
    assert (code, aligned["method"]) == (0, "vismatch:sift")
    assert aligned["homography"][0][0] == pytest.approx(1, abs=0.01)


def test_loops(run):
    options = ("--model", "sift-vlad", "--verifier", "vismatch:sift", "--rerank", 2, "--ignore-frames", 1)
    code, _, err = run("loops", "photos", *options)
    assert code == 0, err
    assert {name for name, *_ in sys.modules["vismatch"].calls} == {"sift"}


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        ("query my-index a.jpg --verifier vismatch:offline", 1, "cannot be downloaded"),
        ("query my-index a.jpg --verifier vismatch:late-offline", 1, "cannot be downloaded"),
        ("query my-index a.jpg --verifier vismatch:broken", 1, "vismatch:broken failed"),
        ("query my-index a.jpg --verifier vismatch:lacking", 2, "transforms3d"),
        ("query my-index a.jpg --verifier vismatch:sfit", 2, "did you mean 'sift'?"),
        ("query my-index a.jpg --verifier vismacth:sift", 2, "did you mean 'vismatch:'?"),
        ("evaluate town --verifier magsac,vismatch:sfit", 2, "did you mean 'sift'?"),
        ("evaluate-pairs town --verifier vismatch:sfit", 2, "did you mean 'sift'?"),
        ("align a.jpg b.jpg --method vismatch:sfit", 2, "did you mean 'sift'?"),
        ("loops photos --verifier vismatch:sfit", 2, "did you mean 'sift'?"),
        ("serve my-index --verifier vismatch:sfit", 2, "did you mean 'sift'?"),
    ],
)
def test_what_fails_is_one_sentence(run, arguments, code, words):
    ended, out, err = run(*arguments.split())
    lines = err.splitlines()
    assert (ended, out) == (code, "")
    assert words in lines[-1]
    assert [line for line in lines if line.startswith("error: ")] == lines[-1:]
    assert "Traceback" not in err


def test_without_the_extra_the_install_line_is_told(run, monkeypatch):
    fake_vismatch.remove(monkeypatch)
    code, _, err = run("query", "my-index", "a.jpg", "--verifier", "vismatch:sift")
    assert code == 2
    assert 'pip install "vpr-dhe[matchers]"' in err


def test_the_family_is_one_line_of_the_table(run):
    code, out, _ = run("verifiers")
    assert code == 0
    assert len([line for line in out.splitlines() if "vismatch:" in line]) == 1
    assert {"xfeat", "lightglue", "vismatch:NAME"} <= {line.split()[0] for line in out.splitlines()}


def test_completion_imports_nothing_slow(tmp_path):
    code = (
        "import sys; from vpr_dhe.cli.shared.options import complete_verifier;"
        "print(complete_verifier('vismatch:s'), {'vismatch', 'torch'} & sys.modules.keys())"
    )
    path = f"{tmp_path / 'site'}"
    done = subprocess.run(
        [sys.executable, "-c", f"import sys; sys.path.insert(0, {path!r}); {code}"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == "['vismatch:scattered', 'vismatch:sift'] set()\n"


def test_completion_goes_on_after_a_comma():
    assert complete_verifier("magsac,vis") == ["magsac,vismatch:"]
    assert complete_verifier("magsac,vismatch:si") == ["magsac,vismatch:sift"]
