"""Indexes of several folders: merged without extraction, and used as those of one folder are."""

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
import torch
from calibrations import write_calibration
from hypothesis import given
from hypothesis import strategies as st

from vpr_dhe.errors import BadInputError
from vpr_dhe.index import merging
from vpr_dhe.index.checking import check
from vpr_dhe.index.image_folders import ImageFolders, MergedFolder
from vpr_dhe.index.manifest import FORMAT, NEWER_FORMAT, publish
from vpr_dhe.index.place_index import PlaceIndex
from vpr_dhe.index.segments import SegmentWriter
from vpr_dhe.records import GeoPosition, GreyLevels, ImageRecord


@pytest.fixture(autouse=True)
def _small_segments(monkeypatch):
    monkeypatch.setattr(merging, "COMPACT_IMAGES", 3)


def photos(folder: Path, names: list[str], seed: int) -> Path:
    rng = np.random.default_rng(seed)
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        coarse = rng.integers(0, 256, (6, 8, 3), np.uint8)
        PIL.Image.fromarray(coarse).resize((80, 60), PIL.Image.Resampling.BICUBIC).save(folder / name)
    return folder


def indexed(folder: Path, images: Path, extractor, names: list[str], codec: str = "float16") -> PlaceIndex:
    index = PlaceIndex.create(folder, extractor.spec, images, codec=codec)
    records = [ImageRecord(name, GeoPosition(48 + number / 1000, 11.0)) for number, name in enumerate(names)]
    index.add(records, extractor)
    return index


NAMES = [f"{number}.png" for number in range(7)]


@pytest.fixture
def monday(tmp_path, thumbnail_extractor) -> PlaceIndex:
    return indexed(tmp_path / "a", photos(tmp_path / "monday/photos", NAMES, 1), thumbnail_extractor, NAMES)


@pytest.fixture
def tuesday(tmp_path, thumbnail_extractor) -> PlaceIndex:
    return indexed(tmp_path / "b", photos(tmp_path / "tuesday/photos", NAMES, 2), thumbnail_extractor, NAMES)


def test_merged_images_keep_features_positions_and_files(monday, tuesday):
    tuesday.remove([2])
    report = monday.merge(tuesday)
    assert (report.added, report.known, report.encoded_again) == (6, 0, False)
    assert [one.name for one in report.folders] == ["photos"]
    merged = PlaceIndex.open(monday.folder)
    assert (len(merged), merged.check().damaged, len(merged.duplicates())) == (13, (), 0)
    for old in tuesday.ids.tolist():
        record = tuesday.image(old)
        new = merged.find(f"photos/{record.path}")
        assert new is not None
        assert new >= 7
        assert merged.image(new) == replace(record, path=f"photos/{record.path}")
        assert merged.image_path(new) == tuesday.image_path(old)
        assert merged.frame(new) == tuesday.frame(old)
        torch.testing.assert_close(merged.local_maps([new]), tuesday.local_maps([old]), rtol=0, atol=0)
        assert merged.search(tuesday.descriptors([old]), 1).ids.tolist() == [[new]]


def test_merging_again_adds_nothing_and_changes_nothing(monday, tuesday):
    monday.merge(tuesday)
    before = monday.manifest
    report = monday.merge(tuesday)
    assert (report.added, report.known, report.folders) == (0, 7, ())
    assert monday.manifest == before


@pytest.mark.parametrize("when", [1, 5, 7])
def test_a_merge_that_is_cut_short_leaves_the_index_as_it_was(monday, tuesday, monkeypatch, when):
    before, append, calls = monday.manifest, SegmentWriter.append, []

    def dying(self, stored):
        calls.append(stored)
        if len(calls) == when:
            raise KeyboardInterrupt
        append(self, stored)

    monkeypatch.setattr(SegmentWriter, "append", dying)
    with pytest.raises(KeyboardInterrupt):
        monday.merge(tuesday)
    monkeypatch.undo()
    assert PlaceIndex.open(monday.folder).manifest == before
    assert monday.merge(tuesday).added == 7
    assert len(list((monday.folder / "segments").iterdir())) == len(monday.manifest.segments)


def test_each_folder_is_indexed_further_under_its_own_names(monday, tuesday, tmp_path, thumbnail_extractor):
    monday.merge(tuesday)
    for folder in (tmp_path / "monday/photos", tmp_path / "tuesday/photos"):
        photos(folder, ["new.png"], len(str(folder)))
        records = monday.relative_to_root([ImageRecord(name) for name in [*NAMES[1:], "new.png"]], folder)
        report = monday.add(records, thumbnail_extractor)
        assert (report.added, report.replaced, report.unchanged) == (1, 0, 6)
        absent = monday.ids_missing_from(records, folder)
        assert [monday.image_path(int(id)) for id in absent] == [folder / NAMES[0]]
    assert monday.find("photos/new.png") is not None
    part = monday.relative_to_root([ImageRecord("x.png")], tmp_path / "tuesday/photos/sub", part=True)
    assert part[0].path == "photos/sub/x.png"
    with pytest.raises(BadInputError, match="give one of these"):
        monday.relative_to_root((), tmp_path / "monday")


def test_a_folder_of_the_name_of_a_merged_one_is_refused(monday, tuesday, tmp_path):
    monday.merge(tuesday)
    with pytest.raises(BadInputError, match=r"by the name photos; rename the folder photos in"):
        monday.relative_to_root([ImageRecord("photos/1.png")], tmp_path / "monday/photos")


def test_names_of_folders_are_numbered_where_they_are_taken(tmp_path, thumbnail_extractor, monday, tuesday):
    photos(tmp_path / "monday/photos", ["photos/extra.png"], 9)  # not indexed, but there
    assert monday.merge(tuesday).folders[0].name == "photos-2"
    wednesday = photos(tmp_path / "wednesday/photos", NAMES[:1], 3)
    other = indexed(tmp_path / "c", wednesday, thumbnail_extractor, NAMES[:1])
    assert monday.merge(other).folders == (MergedFolder("photos-3", str(wednesday)),)
    assert monday.find("photos-3/0.png") is not None


def test_indexes_of_parts_of_one_folder_share_its_names(tmp_path, thumbnail_extractor):
    root = photos(tmp_path / "root", ["0.png", "sub/1.png", "sub/2.png"], 1)
    whole = indexed(tmp_path / "a", root, thumbnail_extractor, ["0.png", "sub/1.png"])
    part = indexed(tmp_path / "b", root / "sub", thumbnail_extractor, ["1.png", "2.png"])
    report = whole.merge(part)
    assert (report.added, report.known, report.folders) == (1, 1, ())
    assert whole.find("sub/2.png") is not None
    # The other way round, the outer folder gets a name, and files of the inner one keep theirs.
    whole = indexed(tmp_path / "c", root, thumbnail_extractor, ["0.png", "sub/1.png"])
    report = part.merge(whole)
    assert (report.added, report.known, report.folders[0].name) == (1, 1, "root")
    records = part.relative_to_root([ImageRecord("0.png"), ImageRecord("sub/1.png")], root)
    assert [record.path for record in records] == ["root/0.png", "1.png"]


def test_files_of_the_same_content_are_duplicates(tmp_path, thumbnail_extractor, monday):
    copies = tmp_path / "copies"
    shutil.copytree(tmp_path / "monday/photos", copies)
    monday.merge(indexed(tmp_path / "c", copies, thumbnail_extractor, NAMES))
    assert len(monday.duplicates()) == 7


def test_a_merged_index_moves_with_its_photos_and_one_folder_may_move_alone(monday, tuesday, tmp_path):
    monday.merge(tuesday)
    drive = tmp_path / "drive"
    drive.mkdir()
    for name in ("a", "monday", "tuesday"):
        (tmp_path / name).rename(drive / name)
    index = PlaceIndex.open(drive / "a")
    assert index.image_path(7) == drive / "tuesday/photos/0.png"
    (drive / "tuesday").rename(drive / "moved")
    index = PlaceIndex.open(drive / "a")
    assert index.move_images(drive / "moved/photos") == str(tmp_path / "tuesday/photos")
    assert index.image_path(7) == drive / "moved/photos/0.png"
    assert index.image_path(0) == drive / "monday/photos/0.png"
    assert index.manifest.folders.missing == ()


def test_only_an_index_of_several_folders_has_the_new_format(monday, tuesday):
    manifest = monday.folder / "manifest.json"
    assert FORMAT in manifest.read_text()
    monday.merge(tuesday)
    assert NEWER_FORMAT in manifest.read_text()
    assert check(monday.folder).folders == monday.manifest.folders.all


def test_what_differs_is_refused_in_one_sentence(monday, tuesday, tmp_path, other_extractor, thumbnail_extractor):
    other = indexed(tmp_path / "c", tmp_path / "monday/photos", other_extractor, NAMES)
    with pytest.raises(BadInputError, match="was made with model 'thumbnail'"):
        monday.merge(other)
    int8 = indexed(tmp_path / "d", tmp_path / "monday/photos", thumbnail_extractor, NAMES, "int8")
    with pytest.raises(BadInputError, match=r"as float16, and .* as int8; run `vpr-dhe compact .* --codec float16`"):
        monday.merge(int8)
    with pytest.raises(BadInputError, match="is the index itself"):
        monday.merge(PlaceIndex.open(monday.folder))
    for index, levels in ((monday, GreyLevels(0, 4095)), (tuesday, GreyLevels(7000, 9000))):
        with index.writing() as writer:
            writer.publish(replace(writer.manifest, grey_levels=levels))
    with pytest.raises(BadInputError, match=r"from 0 to 4095, and .* from 7000 to 9000"):
        monday.merge(tuesday)


@pytest.mark.parametrize("rule", [("auto", GreyLevels(0, 4095)), (None, None)])
def test_the_only_known_rule_for_16_bit_images_holds_for_all(monday, tuesday, rule):
    with tuesday.writing() as writer:
        writer.publish(replace(writer.manifest, bit_depth=rule[0], grey_levels=rule[1]))
    monday.merge(tuesday)
    assert (monday.manifest.bit_depth, monday.manifest.grey_levels) == rule


def test_local_maps_of_a_fitted_codec_are_encoded_for_the_index(tmp_path, thumbnail_extractor):
    first, second = (photos(tmp_path / name, NAMES, seed) for seed, name in enumerate("xy"))
    one = indexed(tmp_path / "a", first, thumbnail_extractor, NAMES, "binary")
    other = indexed(tmp_path / "b", second, thumbnail_extractor, NAMES, "binary")
    assert one.merge(other).encoded_again
    cosines = (one.local_maps(range(7, 14)) * other.local_maps(range(7))).sum(-1)
    assert float(cosines.mean()) > 0.95
    # A new index takes over codec and grey levels of the first that is merged into it.
    new = PlaceIndex.create(tmp_path / "new", thumbnail_extractor.spec, first, codec="auto")
    report = new.merge(one)
    assert (report.added, report.folders[0].name, report.encoded_again) == (14, "y", False)
    torch.testing.assert_close(new.local_maps(range(14)), one.local_maps(range(14)), rtol=0, atol=0)


def test_faiss_files_compaction_and_repair_work_on_merged_indexes(monday, tuesday):
    monday.merge(tuesday)
    monday.configure(index_type="ivf-flat")
    monday.compact()
    assert [file.built.count for file in monday.manifest.vector_files] == [14]
    for id in range(14):
        assert monday.search(monday.descriptors([id]), 1).ids.tolist() == [[id]]
    assert len(monday.manifest.segments) == 1


def test_calibrations_are_dropped_and_an_adaptation_covers_the_new_images(monday, tuesday, thumbnail_extractor):
    from vpr_dhe.localization.calibration.probability import Calibration, Conditions

    conditions = Conditions(thumbnail_extractor.spec.fingerprint, "none", 10)
    write_calibration(monday.folder, Calibration(conditions, 25.0, 0.5, 10, 5, 7, 0.0, {}))
    monday.adapt()
    assert monday.merge(tuesday).dropped_calibrations == ("none",)
    found = monday.search(tuesday.descriptors([3]), 1)
    assert found.ids.tolist() == [[10]]
    assert not list((monday.folder / "calibrations").iterdir())


def test_publishing_keeps_folders(monday, tuesday):
    monday.merge(tuesday)
    publish(monday.manifest, monday.folder)
    assert PlaceIndex.open(monday.folder).manifest == monday.manifest


PART = st.sampled_from(["a", "b", "c"])
PATHS = st.lists(PART, min_size=1, max_size=3).map("/".join)


def test_files_have_the_same_name_through_links(tmp_path):
    disk, elsewhere = tmp_path / "disk/photos", tmp_path / "elsewhere"
    (disk / "day-1").mkdir(parents=True)
    elsewhere.mkdir()
    (tmp_path / "maps").symlink_to(disk.parent)
    (disk / "day-2").symlink_to(elsewhere)
    known = ImageFolders(str(disk))
    for root in (disk, tmp_path / "maps/photos"):
        assert known.name_of(root / "day-1/a.jpg") == "day-1/a.jpg"
        assert known.name_of(root / "day-2/a.jpg") == "day-2/a.jpg"
    assert known.name_of(tmp_path / "other/a.jpg") == "../../other/a.jpg"


@given(st.lists(PATHS, min_size=1, max_size=3, unique=True), PATHS)
def test_names_and_files_are_each_others_inverse(folders, file):
    """Of any nesting of folders, as long as their names are not those of folders in the main one."""
    known = ImageFolders(f"/photos/{folders[0]}")
    for folder in folders[1:]:
        known = known.with_folder(f"/photos/{folder}", {"a", "b", "c"})
    path = f"/photos/{file}/photo.jpg"
    name = known.prefix_of(path)
    assert (name is not None) == any(Path(path).is_relative_to(root) for root in known.all)
    if name is not None:
        assert known.locate(name) == Path(path)
        assert known.name_of(path) == known.name_of(name) == name
        assert Path(path).is_relative_to(known.owner(name))
    for root in known.all:
        if Path(path).is_relative_to(root):
            relative = Path(path).relative_to(root).as_posix()
            namer = known.namer(root)
            assert namer is not None
            assert namer(relative) == name
