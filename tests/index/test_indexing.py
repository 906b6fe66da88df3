"""`index_images`: one call for a first run, and for each later change of the folder."""

import shutil
from dataclasses import replace
from functools import partial

import pytest
from recordings import small_frames, video_of

from vpr_dhe import index_images
from vpr_dhe.errors import BadInputError, ImageError
from vpr_dhe.index.indexing import FramesToExtract
from vpr_dhe.index.manifest import Settings
from vpr_dhe.index.place_index import PlaceIndex
from vpr_dhe.recordings.extraction import extract_frames, frames_folder
from vpr_dhe.recordings.selection import Selection
from vpr_dhe.recordings.videos import open_video

NEW = {"model": "sift-vlad", "codec": "float16"}


def test_a_later_call_extracts_only_what_has_changed(photo_folder, tmp_path):
    stages = []
    first = index_images(
        photo_folder,
        tmp_path / "index",
        **NEW,
        start_progress=lambda description, total: stages.append((description, total)) or (lambda _: None),
    )
    assert (len(first.index), first.images, first.added.added, first.pruned) == (12, 12, 12, False)
    assert stages[0] == ("indexing", 12)
    assert first.chosen_codec.name == "float16"
    assert first.adaptation.steps == ()
    assert first.index.manifest.settings == Settings("float16", "auto", "evidence", "auto")

    shutil.copy(photo_folder / "00.png", photo_folder / "01.png")
    (photo_folder / "02.png").unlink()
    again = index_images(photo_folder, tmp_path / "index", index_type="hnsw")
    assert (again.added.added, again.added.replaced, again.added.unchanged) == (0, 1, 10)
    assert (list(again.missing.gone.values()), len(again.index)) == (["02.png"], 12)
    assert (again.chosen_codec, again.adaptation) == (None, None)
    assert again.index.manifest.settings.index_type == "hnsw"

    pruned = index_images(photo_folder, tmp_path / "index", prune=True)
    assert (pruned.pruned, len(pruned.index), pruned.index.find("02.png")) == (True, 11, None)


def test_a_part_says_nothing_about_the_rest(photo_folder, tmp_path):
    whole = index_images(photo_folder, tmp_path / "index", **NEW)
    report = index_images(photo_folder / "sub", tmp_path / "index", part=True)
    assert (report.added.unchanged, report.missing.gone, len(report.index)) == (2, {}, len(whole.index))
    with pytest.raises(BadInputError, match="--prune needs the whole folder"):
        index_images(photo_folder / "sub", tmp_path / "index", part=True, prune=True)
    with pytest.raises(BadInputError, match="add --add to index a part of it"):
        index_images(photo_folder / "sub", tmp_path / "index")


def test_moved_photos_are_not_extracted_again(photo_folder, tmp_path):
    index_images(photo_folder, tmp_path / "index", **NEW)
    notes, moved = [], photo_folder.rename(tmp_path / "moved")
    report = index_images(moved, tmp_path / "index", moved=True, notify=notes.append)
    assert (report.added.unchanged, report.index.manifest.images_folder) == (12, str(moved))
    assert notes == [f"the images of {tmp_path / 'index'} are now in {moved}, no longer in {photo_folder}"]


def test_lists_and_tables_choose_and_place_images(photo_folder, tmp_path):
    (tmp_path / "list.txt").write_text("03.png\n04.png\n")
    (tmp_path / "positions.csv").write_text("image,latitude,longitude\n03.png,48.5,11.25\n99.png,48.5,11.25\n")
    notes = []
    options = {"image_list": tmp_path / "list.txt", "positions": str(tmp_path / "positions.csv")}
    index = index_images(photo_folder, tmp_path / "index", **NEW, **options, notify=notes.append).index
    assert [index.image(id).path for id in index.ids.tolist()] == ["03.png", "04.png"]
    assert index.image(0).position.latitude_deg == 48.5
    assert [note.rpartition(", such as ")[2] for note in notes[1:]] == ["99.png", "04.png"]


def test_images_that_another_list_leaves_out_are_not_called_missing(photo_folder, tmp_path):
    (tmp_path / "first.txt").write_text("03.png\n04.png\n")
    (tmp_path / "second.txt").write_text("05.png\n")
    index_images(photo_folder, tmp_path / "index", **NEW, image_list=tmp_path / "first.txt")
    notes = []
    index_images(photo_folder, tmp_path / "index", image_list=tmp_path / "second.txt", notify=notes.append)
    assert notes[1:] == ["2 indexed images are not in the list, such as 03.png; --prune removes them from the index"]
    assert len(PlaceIndex.open(tmp_path / "index")) == 3


def test_frames_are_extracted_once_the_index_is_known_to_take_them(photo_folder, tmp_path):
    video = video_of(tmp_path / "walk.mkv", small_frames(4))

    def extract(folder):
        with open_video(video) as source:
            return extract_frames(source, Selection(every=2), folder)

    frames = FramesToExtract(frames_folder(tmp_path / "index"), extract)
    report = index_images(frames, tmp_path / "index", **NEW)
    assert (report.added.added, report.folder.parent) == (2, tmp_path / "index-frames")
    assert all(report.index.image(id).path.startswith(f"{report.folder.name}/") for id in report.index.ids.tolist())

    index_images(photo_folder, tmp_path / "other", **NEW)
    refused = FramesToExtract(tmp_path / "new", partial(pytest.fail, "frames were extracted"))
    with pytest.raises(BadInputError, match="is another folder"):
        index_images(refused, tmp_path / "other")
    refused = replace(refused, folder=frames.folder)
    for options, complaint in (
        ({"codec": "int8"}, "stores local maps as"),
        ({"panorama_views": 12}, "holds panoramas whole"),
    ):
        with pytest.raises(BadInputError, match=complaint):
            index_images(refused, tmp_path / "index", **options)


def test_images_may_be_added_by_another_function(photo_folder, tmp_path):
    calls = []

    def add(index, records, extractor, *, progress):
        calls.append(len(records))
        return index.add(records[:5], extractor, progress=progress)

    assert len(index_images(photo_folder, tmp_path / "index", **NEW, add_images=add).index) == 5
    assert calls == [12]


def test_unreadable_images_are_reported_or_refused(photo_folder, tmp_path):
    (photo_folder / "00.png").write_text("no image")
    with pytest.raises(ImageError):
        index_images(photo_folder, tmp_path / "strict", **NEW, strict=True)
    report = index_images(photo_folder, tmp_path / "index", **NEW)
    assert ([image.path for image in report.added.skipped], len(report.index)) == (["00.png"], 11)


def test_the_first_settings_hold_for_a_run_that_was_cut_short(photo_folder, tmp_path):
    def cut_short(*_, **__):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        index_images(photo_folder, tmp_path / "index", **NEW, rank_by="inliers", add_images=cut_short)
    assert not PlaceIndex.has_images(tmp_path / "index")
    index = index_images(photo_folder, tmp_path / "index").index
    assert (index.spec.model, index.manifest.settings.rank_by, len(index)) == ("sift-vlad", "inliers", 12)
