"""Folders of which a part cannot be listed today: nothing is lost, and nothing is left out without a word."""

from pathlib import Path

import numpy as np
import PIL.Image
import pytest

from vpr_dhe.index.place_index import PlaceIndex


def write_photos(folder: Path, numbers: range) -> None:
    folder.mkdir(parents=True)
    for number in numbers:
        coarse = np.random.default_rng(number).integers(0, 256, (12, 16, 3), np.uint8)
        picture = PIL.Image.fromarray(coarse).resize((160, 120), PIL.Image.Resampling.NEAREST)
        picture.save(folder / f"{number}.jpg")


@pytest.fixture
def photos(tmp_path) -> Path:
    """Photos of two days; the second is a link to a drive."""
    write_photos(tmp_path / "photos" / "day-1", range(3))
    write_photos(tmp_path / "drive", range(3, 5))
    (tmp_path / "photos" / "day-2").symlink_to(tmp_path / "drive")
    (tmp_path / "photos" / "single.jpg").symlink_to(tmp_path / "drive" / "3.jpg")
    return tmp_path / "photos"


def test_an_index_keeps_images_that_cannot_be_listed(run, photos, tmp_path):
    index, drive = tmp_path / "index", tmp_path / "drive"
    assert run("index", photos, "--out", index)[0] == 0
    drive.rename(tmp_path / "unplugged")
    named = f"{photos / 'day-2'} cannot be listed (a link to {drive}, which does not exist)"

    code, _, stderr = run("index", photos, "--out", index)
    assert code == 0
    assert f"{named}; its images are missing" in stderr
    assert "2 indexed images cannot be read now and are kept, such as day-2/3.jpg" in stderr
    assert "--prune removes them" not in stderr
    for option in ("--prune", "--strict"):
        code, _, stderr = run("index", photos, "--out", index, option)
        assert (code, f"error: {named}" in stderr) == (1, True)
    assert len(PlaceIndex.open(index)) == 6

    (tmp_path / "unplugged").rename(drive)
    (drive / "4.jpg").unlink()
    assert "removed 1 missing images, such as day-2/4.jpg" in run("index", photos, "--out", index, "--prune")[2]
    assert len(PlaceIndex.open(index)) == 5


def test_a_new_index_and_queries_name_what_they_miss(run, photos, tmp_path):
    (tmp_path / "drive").rename(tmp_path / "unplugged")
    (photos / "clip.mov").touch()
    named = f"{photos / 'day-2'} cannot be listed"
    code, _, stderr = run("index", photos, "--out", tmp_path / "index")
    assert (code, named in stderr) == (0, True)
    assert f"{photos}: left out 1 .mov, such as clip.mov" in stderr
    code, stdout, stderr = run(
        "query", tmp_path / "index", photos, "--verifier", "none", "--top-k", 1, "--format", "csv"
    )
    assert (code, named in stderr, stdout.count("day-1")) == (0, True, 6)


def test_half_a_data_set_is_not_measured(run, photos, tmp_path):
    data = tmp_path / "data"
    data.mkdir()
    write_photos(data / "database", range(3))
    photos.rename(data / "queries")
    (tmp_path / "drive").rename(tmp_path / "unplugged")
    code, stdout, stderr = run("evaluate", data, "--verifier", "none", "--cache", "none")
    assert (code, stdout) == (1, "")
    assert f"error: {data / 'queries' / 'day-2'} cannot be listed" in stderr


def test_a_list_beside_photos_is_used_only_if_asked_for(run, tmp_path):
    photos, index = tmp_path / "photos", tmp_path / "index"
    write_photos(photos, range(5))
    beside = tmp_path / "photos_images_paths.txt"
    beside.write_text("0.jpg\n1.jpg\n2.jpg\n")
    code, stdout, stderr = run("index", photos, "--out", index)
    assert (code, "5 images (5 added" in stdout, f"{beside} is not used" in stderr) == (0, True, True)
    (photos / "1.jpg").unlink()
    assert "removed 1 missing images, such as 1.jpg" in run("index", photos, "--out", index, "--prune")[2]

    code, stdout, stderr = run("index", photos, "--out", index, "--list", beside, "--prune")
    assert (code, "2 images (0 added, 2 unchanged" in stdout) == (0, True)
    assert "lists 3 images, 1 of" in stderr
    assert "1 of them missing, such as 1.jpg, and leaves out 2 others, such as 3.jpg" in stderr
    code, _, stderr = run("index", photos, "--out", index, "--list", beside, "--strict")
    assert (code, "lists 1.jpg, which is not in" in stderr) == (1, True)
    assert run("index", photos, "--out", index, "--list", tmp_path / "none.txt")[0] == 2
