"""Names in lists of pairs: relative to one folder, so that COLMAP and hloc find the images of both sides."""

import shutil
from pathlib import Path

import numpy as np
import PIL.Image
import pytest

OPTIONS = ("--verifier", "none", "--top-k", 2, "--format", "hloc")


@pytest.fixture
def root(photo_folder, tmp_path) -> Path:
    """A folder with database and queries."""
    root = tmp_path / "root"
    (root / "query").mkdir(parents=True)
    photo_folder.rename(root / "db")
    for name in ("00.png", "03.png"):
        shutil.copyfile(root / "db" / name, root / "query" / name)
    return root


@pytest.mark.slow
def test_both_sides_are_relative_to_one_folder(run, root, tmp_path):
    index = tmp_path / "index"
    assert run("index", root / "db", "--out", index)[0] == 0
    link = tmp_path / "link"
    link.symlink_to(root)
    for queries, names in ((root / "query", root), (link / "query", root), (root / "query", link)):
        code, stdout, _ = run("query", index, queries, *OPTIONS, "--names-relative-to", names)
        pairs = [line.split() for line in stdout.splitlines()]
        assert (code, len(pairs)) == (0, 4)
        assert all((root / name).is_file() for pair in pairs for name in pair)
        assert pairs[0] == ["query/00.png", "db/00.png"]
    plain = run("query", index, root / "query", *OPTIONS)[1].splitlines()
    assert plain[0] == f"{root / 'query/00.png'} 00.png"

    code, stdout, stderr = run("query", index, root / "query", *OPTIONS, "--names-relative-to", root / "db")
    assert (code, stdout, "is not in" in stderr) == (2, "", True)
    code, _, stderr = run("query", index, root / "query", "--names-relative-to", root)
    assert (code, "add --format hloc" in stderr) == (2, True)


@pytest.mark.slow
def test_colmap_matches_the_pairs(run, root, tmp_path):
    pycolmap = pytest.importorskip("pycolmap", reason="no pycolmap; pip install pycolmap")
    rng = np.random.default_rng(0)
    for number, path in enumerate(sorted(root.glob("*/*.png"))):
        scene = np.random.default_rng(int(path.stem)).integers(0, 256, (30, 40, 3), np.uint8)
        picture = PIL.Image.fromarray(scene).resize((640, 480), PIL.Image.Resampling.BICUBIC)
        noise = rng.normal(0, 2 + number % 2, (480, 640, 3))
        PIL.Image.fromarray((np.asarray(picture) + noise).clip(0, 255).astype(np.uint8)).save(path)
    assert run("index", root / "db", "--out", tmp_path / "index")[0] == 0
    pairs = tmp_path / "pairs.txt"
    run("query", tmp_path / "index", root / "query", *OPTIONS, "--names-relative-to", root, "--out", pairs)
    database = tmp_path / "colmap.db"
    pycolmap.extract_features(database, root)
    options = pycolmap.ImportedPairingOptions()
    options.match_list_path = pairs
    pycolmap.match_image_pairs(database, pairing_options=options)
    with pycolmap.Database.open(database) as opened:
        assert opened.num_matched_image_pairs() == len(pairs.read_text().splitlines())
