"""`merge_indexes`: several indexes become one, adapted to the map of all."""

import shutil

import pytest

from vpr_dhe import index_images
from vpr_dhe.datasets.standard import read_split
from vpr_dhe.errors import BadInputError
from vpr_dhe.index.merged_indexes import merge_indexes
from vpr_dhe.index.place_index import PlaceIndex


def test_a_new_index_takes_the_settings_of_the_first(photo_folder, tmp_path):
    shutil.copytree(photo_folder / "sub", tmp_path / "tour")
    for name, folder in (("a", photo_folder), ("b", tmp_path / "tour")):
        index_images(folder, tmp_path / name, model="sift-vlad", codec="float16", rank_by="inliers")
    notes = []
    merged = merge_indexes([tmp_path / "a", tmp_path / "b"], tmp_path / "all", index_type="hnsw", notify=notes.append)
    assert (merged.added, [merge.added for merge in merged.merges], len(merged.index)) == (14, [12, 2], 14)
    settings = merged.index.manifest.settings
    assert (settings.codec, settings.rank_by, settings.index_type) == ("float16", "inliers", "hnsw")
    assert notes == [f"paths of the images in {tmp_path / 'tour'} begin with tour/"]
    assert merged.adaptation.images == 14

    notes.clear()
    again = merge_indexes([tmp_path / "b"], tmp_path / "all", notify=notes.append)
    assert (again.added, again.adaptation) == (0, None)
    assert notes == [f"2 images of {tmp_path / 'b'} are in {tmp_path / 'all'} already, and left out"]
    with pytest.raises(BadInputError, match="is the index itself"):
        merge_indexes([tmp_path / "all"], tmp_path / "all")
    with pytest.raises(BadInputError, match="give at least one"):
        merge_indexes([], tmp_path / "none")


def test_nothing_is_merged_if_one_does_not_fit(photo_folder, tmp_path, thumbnail_extractor):
    index_images(photo_folder, tmp_path / "all", model="sift-vlad", codec="float16")
    shutil.copytree(photo_folder / "sub", tmp_path / "tour")
    index_images(tmp_path / "tour", tmp_path / "fits", model="sift-vlad", codec="float16")
    other = PlaceIndex.create(tmp_path / "other", thumbnail_extractor.spec, tmp_path / "tour", codec="float16")
    other.add(read_split(tmp_path / "tour").records, thumbnail_extractor)
    with pytest.raises(BadInputError):
        merge_indexes([tmp_path / "fits", tmp_path / "other"], tmp_path / "all")
    with pytest.raises(BadInputError):
        merge_indexes([tmp_path / "fits"], tmp_path / "all", index_type="binary-codes")
    assert len(PlaceIndex.open(tmp_path / "all")) == 12


def test_a_merge_that_was_cut_short_is_adapted_by_the_next(photo_folder, tmp_path):
    index_images(photo_folder, tmp_path / "all", model="sift-vlad", codec="float16", adapt="auto")
    shutil.copytree(photo_folder / "sub", tmp_path / "tour")
    index_images(tmp_path / "tour", tmp_path / "new", model="sift-vlad", codec="float16")
    PlaceIndex.open(tmp_path / "all").merge(PlaceIndex.open(tmp_path / "new"))
    merged = merge_indexes([tmp_path / "new"], tmp_path / "all")
    assert (merged.added, merged.adaptation.images) == (0, 14)
