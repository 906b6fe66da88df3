"""Parts of a pair set, by name alone."""

import sys
from pathlib import Path

import numpy as np
import PIL.Image
import pytest

from vpr_dhe.datasets.pairs import read_pairs

sys.path.append(str(Path(__file__).parents[2] / "datasets"))
import split_pairs


@pytest.fixture
def split(monkeypatch, capsys):
    """Run the script in this process; returns exit code and stderr."""

    def call(*arguments):
        monkeypatch.setattr("sys.argv", ["split_pairs.py", *map(str, arguments)])
        code = split_pairs.main()
        return code, capsys.readouterr().err

    return call


def write_images(folder, names):
    folder.mkdir(parents=True)
    for name in names:
        PIL.Image.fromarray(np.zeros((16, 16, 3), np.uint8)).save(folder / name)


def parts(folder):
    return {part: {pair.name for pair in read_pairs(folder / part).pairs} for part in ("train", "val", "test")}


def test_folders_are_split_and_a_pair_more_moves_no_other(split, tmp_path):
    names = [f"{number:02}.png" for number in range(30)]
    for count in (29, 30):
        for side in ("a", "b"):
            write_images(tmp_path / f"data{count}" / side, names[:count])
        assert split(tmp_path / f"data{count}", "--out", tmp_path / f"out{count}") == (0, "")
    fewer, more = parts(tmp_path / "out29"), parts(tmp_path / "out30")
    assert sum(map(len, more.values())) == 30
    assert len(set.union(*more.values())) == 30
    assert all(fewer[part] <= more[part] for part in more)
    assert len(more["train"]) > len(more["test"]) > 0
    assert (tmp_path / "out30/train/a").is_dir()
    assert next((tmp_path / "out30/train/a").iterdir()).is_symlink()


def test_tables_are_split_with_their_rows(split, tmp_path):
    names = [f"{number:02}.png" for number in range(30)]
    write_images(tmp_path / "data", names)
    rows = [f"{name},{name},1,0,{number},0,1,0,0,0,1" for number, name in enumerate(names)]
    header = "image_a,image_b,h00,h01,h02,h10,h11,h12,h20,h21,h22"
    (tmp_path / "data/pairs.csv").write_text("\n".join([header, *rows]) + "\n")
    assert split(tmp_path / "data", "--out", tmp_path / "out") == (0, "")
    assert sum(map(len, parts(tmp_path / "out").values())) == 30
    pair = read_pairs(tmp_path / "out/train").pairs[0]
    assert pair.homography[0, 2] == int(pair.name[:2])


@pytest.mark.parametrize("layout", ["aligned", "pairs"])
def test_pairs_with_an_image_of_one_colour_can_be_left_out(split, tmp_path, layout):
    """The first ten and the last ten photos of B show nothing; the others a line, which is enough."""
    names, data = [f"{number:02}.png" for number in range(50)], tmp_path / "data"
    random = np.random.default_rng(0)
    for side in ("a", "b"):
        write_images(data / side, names)
    for number, name in enumerate(names):
        photo = random.integers(0, 256, (16, 16, 3), np.uint8)
        PIL.Image.fromarray(photo).save(data / "a" / name)
        if number >= 10:
            photo[: 16 if number >= 40 else 15] = 255
            PIL.Image.fromarray(photo).save(data / "b" / name)
    if layout == "pairs":
        rows = [f"a/{name},b/{name},1,0,0,0,1,0,0,0,1" for name in names]
        header = "image_a,image_b,h00,h01,h02,h10,h11,h12,h20,h21,h22"
        (data / "pairs.csv").write_text("\n".join([header, *rows]) + "\n")
    assert split(data, "--out", tmp_path / "out", "--leave-out-plain") == (0, "")
    kept = {Path(name.split()[0]).stem for name in set.union(*parts(tmp_path / "out").values())}
    assert kept == {name[:2] for name in names[10:40]}


def test_what_cannot_be_split_is_said_in_one_sentence(split, tmp_path):
    write_images(tmp_path / "photos", ["a.png"])
    for arguments, said in (
        ((tmp_path / "photos", "--out", tmp_path / "out"), "neither folders a and b nor pairs.csv"),
        ((tmp_path / "photos", "--out", tmp_path), "exists already"),
    ):
        code, complaint = split(*arguments)
        assert code == 2
        assert said in complaint


def test_what_cannot_be_read_leaves_nothing_behind(split, tmp_path):
    names = [f"{number:02}.png" for number in range(6)]
    for side in ("a", "b"):
        write_images(tmp_path / "data" / side, names)
    PIL.Image.fromarray(np.arange(256, dtype=np.uint8).reshape(16, 16)).save(tmp_path / "data/a/05.png")
    (tmp_path / "data/b/05.png").write_bytes(b"no image")
    code, complaint = split(tmp_path / "data", "--out", tmp_path / "out", "--leave-out-plain")
    assert (code, "05.png" in complaint, (tmp_path / "out").exists()) == (2, True, False)
    (tmp_path / "data/b/05.png").unlink()
    code, complaint = split(tmp_path / "data", "--out", tmp_path / "out")
    assert (code, "no image of the same name" in complaint, (tmp_path / "out").exists()) == (2, True, False)
