"""Output of any file names on any terminal and in any format, and caches of users without a home folder."""

import csv
import io
import json
import os
import subprocess
import sys
import unicodedata
from pathlib import Path

import numpy as np
import PIL.Image
import pytest

from vpr_dhe.cli.shared.encoding import write_all_names
from vpr_dhe.cli.shared.progress import cache_folder

STREET = "улица.jpg"


@pytest.fixture
def photos(tmp_path) -> Path:
    folder = tmp_path / "map"
    folder.mkdir()
    for number, name in enumerate(("a.jpg", STREET, "two words.jpg", "line\nbreak.jpg")):
        coarse = np.random.default_rng(number).integers(0, 256, (12, 16, 3), np.uint8)
        PIL.Image.fromarray(coarse).resize((160, 120), PIL.Image.Resampling.NEAREST).save(folder / name)
    return folder


@pytest.fixture
def index(run, photos, tmp_path) -> Path:
    assert run("index", photos, "--out", tmp_path / "index")[0] == 0
    return tmp_path / "index"


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "cp1252", "utf-8"])
def test_names_are_written_as_the_terminal_can(encoding, capsys):
    raw = io.BytesIO()
    stream = io.TextIOWrapper(raw, encoding=encoding, newline="\n")
    write_all_names(stream)
    not_text = os.fsdecode(b"\xff\xfe.jpg")
    print(f"{STREET} é {not_text}", file=stream, flush=True)
    lost = {"ascii": (STREET, "é"), "utf-8": ()}.get(encoding, (STREET.removesuffix(".jpg"),))
    escaped = f"{STREET} é "
    for part in lost:
        escaped = escaped.replace(part, part.encode("ascii", "backslashreplace").decode())
    assert raw.getvalue() == escaped.encode(encoding) + b"\xff\xfe.jpg\n"


@pytest.mark.slow
def test_queries_are_answered_on_a_terminal_of_ascii(index, photos):
    environment = {**os.environ, "PYTHONIOENCODING": "ascii"}
    command = [sys.executable, "-m", "vpr_dhe", "query", index, photos, "--verifier", "none", "--top-k", "1"]
    done = subprocess.run([*command, "--format", "csv"], capture_output=True, env=environment, check=False)
    assert (done.returncode, b"Traceback" in done.stderr) == (0, False)
    assert rb"\u0443\u043b" in done.stdout
    assert done.stderr.count(b"PYTHONIOENCODING") == 1


def test_csv_is_read_back_as_it_was_named(run, index, photos):
    _, stdout, _ = run("query", index, photos, "--verifier", "none", "--top-k", 1, "--format", "csv")
    rows = list(csv.DictReader(io.StringIO(stdout, newline="")))
    assert sorted(row["image"] for row in rows) == sorted(path.name for path in photos.iterdir())
    _, table, _ = run("query", index, photos, "--verifier", "none", "--top-k", 1)
    assert r"line\nbreak.jpg" in table


def test_pairs_with_blanks_are_left_out_and_counted(run, index, photos):
    code, stdout, stderr = run("query", index, photos, "--verifier", "none", "--top-k", 1, "--format", "hloc")
    expected = [f"{photos / name} {name}" for name in ("a.jpg", STREET)]
    assert (code, sorted(stdout.splitlines())) == (0, sorted(expected))
    assert "left out 2 pairs: names in a list of pairs cannot contain blanks" in stderr
    photo = photos / "two words.jpg"
    assert run("query", index, photo, "--verifier", "none", "--top-k", 1, "--format", "hloc")[:2] == (2, "")


def test_unreadable_names_are_one_line_each(run, index, photos):
    (photos / "bad\nname.jpg").write_bytes(b"no image")
    _, _, stderr = run("index", photos, "--out", index)
    assert r"skipped bad\nname.jpg: not an image" in stderr
    assert json.loads(run("check", index, "--format", "json")[1])["skipped"] == 1


def test_images_are_removed_by_names_of_another_system(run, photos, tmp_path):
    nfc, nfd = (unicodedata.normalize(form, "Café.jpg") for form in ("NFC", "NFD"))
    (photos / "a.jpg").rename(photos / nfd)
    run("index", photos, "--out", tmp_path / "index")
    code, stdout, _ = run("remove", tmp_path / "index", nfc)
    assert (code, "3 images (1 removed)" in stdout) == (0, True)


def test_without_a_home_nothing_is_cached_and_one_line_says_so(monkeypatch, capsys, tmp_path):
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)

    def no_home() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "home", no_home)
    assert cache_folder("auto", "databases") is None
    assert (
        capsys.readouterr().err
        == "nothing is cached: this user has no home folder; choose a folder with --cache FOLDER\n"
    )
    assert cache_folder(str(tmp_path / "own"), "databases") == tmp_path / "own"
    assert cache_folder("none", "databases") is None


@pytest.mark.parametrize("variable", ["HOME", "XDG_CACHE_HOME"])
def test_a_cache_that_cannot_be_made_is_done_without(monkeypatch, capsys, tmp_path, variable):
    (tmp_path / "file").touch()
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setenv(variable, str(tmp_path / "file"))
    assert cache_folder("auto", "databases") is None
    assert "nothing is cached: folder" in capsys.readouterr().err
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("XDG_CACHE_HOME", "relative/folder")
    assert cache_folder("auto", "databases") == tmp_path / "home/.cache/vpr-dhe/databases"
