"""Photos and indexes that are moved: nothing is extracted again, and what needs the photos says where to name them."""

import shutil
from pathlib import Path

import numpy as np
import PIL.Image
import pytest

from vpr_dhe.errors import BadInputError
from vpr_dhe.index.place_index import PlaceIndex
from vpr_dhe.records import ImageRecord

NAMES = [f"{number:02d}.png" for number in range(12)]


@pytest.fixture
def indexed(photo_folder, tmp_path, thumbnail_extractor) -> PlaceIndex:
    (photo_folder / "sub").rename(tmp_path / "spare")
    index = PlaceIndex.create(tmp_path / "index", thumbnail_extractor.spec, photo_folder, codec="float16")
    index.add([ImageRecord(name) for name in NAMES[:10]], thumbnail_extractor)
    return index


def extracted_again(index: PlaceIndex, extractor, folder: Path) -> int:
    """Images that a new run on a folder extracts."""
    records = index.relative_to_root([ImageRecord(path.name) for path in sorted(folder.iterdir())], folder)
    report = index.add(records, extractor)
    return report.added + report.replaced


def test_moved_photos_are_not_extracted_again(indexed, photo_folder, tmp_path, thumbnail_extractor):
    moved = tmp_path / "elsewhere" / "b"
    # A copy has new times, and the same content.
    shutil.copytree(photo_folder, moved, copy_function=shutil.copyfile)
    shutil.rmtree(photo_folder)
    with pytest.raises(BadInputError, match=r"which does not exist; if its photos were moved to .*, add --moved"):
        indexed.relative_to_root((), moved)
    indexed.move_images(moved)
    assert extracted_again(PlaceIndex.open(indexed.folder), thumbnail_extractor, moved) == 0
    assert indexed.image_path(0) == moved / NAMES[0]


def test_another_folder_is_not_taken_for_the_photos(indexed, photo_folder, tmp_path):
    other = tmp_path / "other"
    other.mkdir()
    for name in NAMES[:10]:
        PIL.Image.fromarray(np.zeros((60, 80, 3), np.uint8)).save(other / name)
    with pytest.raises(BadInputError, match="holds 0 of 10 indexed images unchanged"):
        indexed.move_images(other)
    for name in NAMES[:5]:
        shutil.copyfile(photo_folder / name, other / name)
    indexed.move_images(other)
    assert Path(indexed.manifest.images_folder) == other


def test_index_and_photos_move_together(indexed, photo_folder, tmp_path, thumbnail_extractor):
    drive = tmp_path / "drive"
    drive.mkdir()
    photo_folder.rename(drive / photo_folder.name)
    indexed.folder.rename(drive / "index")
    opened = PlaceIndex.open(drive / "index")
    assert opened.image_path(0) == drive / photo_folder.name / NAMES[0]
    assert extracted_again(opened, thumbnail_extractor, drive / photo_folder.name) == 0


def test_the_old_folder_may_be_a_link_to_the_new_one(indexed, photo_folder, tmp_path, thumbnail_extractor):
    photo_folder.rename(tmp_path / "b")
    photo_folder.symlink_to(tmp_path / "b")
    for name in (photo_folder, tmp_path / "b"):
        assert extracted_again(indexed, thumbnail_extractor, name) == 0


@pytest.mark.slow
def test_commands_after_the_photos_were_moved(run, photo_folder, tmp_path):
    index, moved = tmp_path / "index", tmp_path / "b"
    options = ("--verifier", "none", "--top-k", 1, "--format", "csv")
    assert run("index", photo_folder, "--out", index)[0] == 0
    assert run("index", photo_folder, "--out", tmp_path / "new", "--moved")[0] == 2
    photo_folder.rename(moved)
    code, _, stderr = run("index", moved, "--out", index)
    assert (code, "add --moved" in stderr) == (2, True)
    code, _, stderr = run("query", index, moved / NAMES[0], *options, "--report", tmp_path / "report.html")
    assert (code, f"run `vpr-dhe index NEW --out {index} --moved`" in stderr) == (0, True)
    code, _, stderr = run("query", index, moved / NAMES[0], "--verifier", "weak-alignment", "--rerank", 1)
    assert (code, "--moved" in stderr, "could be read" in stderr) == (2, True, False)
    code, _, stderr = run("calibrate", index, "--rerank", 3)
    assert (code, "--moved" in stderr) == (2, True)

    code, stdout, stderr = run("index", moved, "--out", index, "--moved")
    assert (code, "(0 added, 12 unchanged" in stdout, f"are now in {moved}" in stderr) == (0, True, True)
    code, _, stderr = run("query", index, moved / NAMES[0], *options, "--report", tmp_path / "report.html")
    assert (code, stderr) == (0, "")
    assert "data:image" in (tmp_path / "report.html").read_text()
