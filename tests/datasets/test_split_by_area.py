"""Two sides of a town, as links, with nothing of one near the other."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import PIL.Image
import pytest

from vpr_dhe.places import Protocol, read_places

SCRIPT = Path(__file__).parents[2] / "datasets" / "split_by_area.py"


def split(*arguments):
    return subprocess.run([sys.executable, SCRIPT, *map(str, arguments)], capture_output=True, text=True, check=False)


@pytest.fixture
def town(tmp_path):
    for part in ("database", "queries"):
        folder = tmp_path / "town/images/test" / part
        folder.mkdir(parents=True)
        for number in range(21):
            name = f"@{500_000 + 10 * number}@5000000@31@U@.png"
            PIL.Image.fromarray(np.full((4, 4, 3), number, np.uint8)).save(folder / name)
    return tmp_path / "town"


def test_each_side_has_its_images_and_none_is_near_the_border(town, tmp_path):
    done = split(town, "--out", tmp_path / "halves", "--gap-m", 60)
    assert done.returncode == 0, done.stderr
    assert "train/database: 7 images" in done.stdout
    sides = [read_places(tmp_path / "halves", protocol=Protocol(split=side)) for side in ("train", "test")]
    eastings = [[record.position.x_m - 500_000 for record in side.database.records] for side in sides]
    assert eastings == [[0, 10, 20, 30, 40, 50, 60], [140, 150, 160, 170, 180, 190, 200]]
    image = next((tmp_path / "halves/images/test/queries").iterdir())
    assert image.is_symlink()
    assert image.resolve().is_relative_to(town)


def test_what_cannot_be_split_is_said_in_one_sentence(town, tmp_path):
    assert "choose a gap smaller than 300 m" in split(town, "--out", tmp_path / "halves", "--gap-m", 300).stderr
    assert not (tmp_path / "halves").exists()
    assert split(town, "--out", town).returncode == 2
    assert "exists already" in split(town, "--out", town).stderr
    assert "Traceback" not in split(tmp_path / "nowhere", "--out", tmp_path / "halves").stderr
