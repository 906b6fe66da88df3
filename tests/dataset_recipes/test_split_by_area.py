"""Two sides of a town, as links, with nothing of one near the other."""

import sys
from pathlib import Path
from typing import NamedTuple

import numpy as np
import PIL.Image
import pytest

from vpr_dhe.datasets import Protocol, read_places

sys.path.append(str(Path(__file__).parents[2] / "datasets"))
import split_by_area


class Done(NamedTuple):
    code: int
    stdout: str
    stderr: str


@pytest.fixture
def split(monkeypatch, capsys):
    """Run the script in this process."""

    def call(*arguments):
        monkeypatch.setattr("sys.argv", ["split_by_area.py", *map(str, arguments)])
        return Done(split_by_area.main(), *capsys.readouterr())

    return call


@pytest.fixture
def town(tmp_path):
    for part in ("database", "queries"):
        folder = tmp_path / "town/images/test" / part
        folder.mkdir(parents=True)
        for number in range(21):
            name = f"@{500_000 + 10 * number}@5000000@31@U@.png"
            PIL.Image.fromarray(np.full((4, 4, 3), number, np.uint8)).save(folder / name)
    return tmp_path / "town"


def test_each_side_has_its_images_and_none_is_near_the_border(split, town, tmp_path):
    done = split(town, "--out", tmp_path / "halves", "--gap-m", 60)
    assert done.code == 0, done.stderr
    assert "train/database: 7 images" in done.stdout
    sides = [read_places(tmp_path / "halves", protocol=Protocol(split=side)) for side in ("train", "test")]
    eastings = [[record.position.x_m - 500_000 for record in side.database.records] for side in sides]
    assert eastings == [[0, 10, 20, 30, 40, 50, 60], [140, 150, 160, 170, 180, 190, 200]]
    image = next((tmp_path / "halves/images/test/queries").iterdir())
    assert image.is_symlink()
    assert image.resolve().is_relative_to(town)


def test_what_cannot_be_split_is_said_in_one_sentence(split, town, tmp_path):
    assert "choose a gap smaller than 300 m" in split(town, "--out", tmp_path / "halves", "--gap-m", 300).stderr
    assert not (tmp_path / "halves").exists()
    refused = split(town, "--out", town)
    assert (refused.code, refused.stderr.count("\n"), "exists already" in refused.stderr) == (2, 1, True)
    assert split(tmp_path / "nowhere", "--out", tmp_path / "halves").code == 2
