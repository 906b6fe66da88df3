"""The index on disk: what goes in comes out, and what was damaged says so."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from vpr_dhe.errors import BadInputError, ImageError, IndexBusyError, IndexDamagedError, IndexFormatError
from vpr_dhe.images import decode_image
from vpr_dhe.index import place_index
from vpr_dhe.index.manifest import writing
from vpr_dhe.index.place_index import PlaceIndex, check
from vpr_dhe.places.standard import read_split
from vpr_dhe.records import ImageRecord, Size


@pytest.fixture
def index(photo_folder, tmp_path, thumbnail_extractor, monkeypatch) -> PlaceIndex:
    monkeypatch.setattr(place_index, "SEGMENT_IMAGES", 5)
    index = PlaceIndex.create(tmp_path / "index", thumbnail_extractor.spec, photo_folder)
    index.add(read_split(photo_folder).records, thumbnail_extractor, batch_size=2)
    return index


def segment(index: PlaceIndex, number: int) -> Path:
    return index.folder / "segments" / index.manifest.segments[number].name


def flip_a_byte(path: Path, offset: int) -> None:
    content = bytearray(path.read_bytes())
    content[offset] ^= 0x40
    path.write_bytes(content)


def test_a_reopened_index_returns_what_was_extracted(index, photo_folder, thumbnail_extractor):
    reopened = PlaceIndex.open(index.folder)
    assert len(reopened) == 12
    assert len(reopened.manifest.segments) == 3
    for id in range(12):
        path = reopened.image(id).path
        features = thumbnail_extractor.extract([decode_image(photo_folder / path)])[0]
        found = reopened.search(features.global_descriptor[None], 3)
        assert found.rows[0, 0] == id
        assert found.similarities[0, 0] == pytest.approx(1, abs=1e-5)
        assert reopened.frame(id).image_size == Size(80 + id, 60)
        torch.testing.assert_close(reopened.local_maps([id])[0], features.local_map, rtol=0, atol=1e-3)


def test_local_maps_keep_the_order_asked_for_across_segments(index):
    everything = index.local_maps(range(12))
    wanted = [11, 0, 7, 7, 3]
    torch.testing.assert_close(index.local_maps(wanted), everything[wanted])


def test_search_asks_for_no_more_than_there_is(index):
    assert index.search(torch.ones(2, 256), 100).rows.shape == (2, 12)


def test_similarity_of_unnormalised_vectors_follows_their_distance(photo_folder, tmp_path, thumbnail_extractor):
    from dataclasses import replace

    thumbnail_extractor.spec = replace(thumbnail_extractor.spec, unit_norm=False)
    index = PlaceIndex.create(tmp_path / "l2", thumbnail_extractor.spec, photo_folder)
    index.add(read_split(photo_folder).records, thumbnail_extractor)
    query = index.descriptors([4]) + 1.0
    found = index.search(query, 12)
    distances = torch.linalg.vector_norm(index.descriptors(range(12)) - query, dim=1).numpy()
    np.testing.assert_array_equal(found.rows[0], np.argsort(distances))
    np.testing.assert_allclose(found.similarities[0], 1 - np.sort(distances) ** 2 / 2, rtol=1e-3)


def test_unreadable_images_are_skipped_and_remembered(photo_folder, tmp_path, thumbnail_extractor):
    (photo_folder / "05.png").write_bytes(b"broken")
    index = PlaceIndex.create(tmp_path / "index", thumbnail_extractor.spec, photo_folder)
    seen: list[int] = []
    report = index.add(read_split(photo_folder).records, thumbnail_extractor, progress=seen.append)
    assert (report.added, [image.path for image in report.skipped]) == (11, ["05.png"])
    assert sum(seen) == 12
    assert [image.path for image in PlaceIndex.open(index.folder).manifest.skipped] == ["05.png"]
    with pytest.raises(ImageError, match=r"05\.png"):
        PlaceIndex.create(tmp_path / "strict", thumbnail_extractor.spec, photo_folder).add(
            read_split(photo_folder).records, thumbnail_extractor, strict=True
        )


def test_an_interruption_keeps_what_was_extracted(photo_folder, tmp_path, thumbnail_extractor):
    index = PlaceIndex.create(tmp_path / "index", thumbnail_extractor.spec, photo_folder)
    extract = thumbnail_extractor.extract

    def interrupted_at_the_third_batch(images):
        if len(thumbnail_extractor.batches) == 2:
            raise KeyboardInterrupt
        return extract(images)

    thumbnail_extractor.extract = interrupted_at_the_third_batch
    records = read_split(photo_folder).records
    with pytest.raises(KeyboardInterrupt):
        index.add(records, thumbnail_extractor, batch_size=4)
    thumbnail_extractor.extract = extract
    reopened = PlaceIndex.open(index.folder)
    assert len(reopened) == 8
    assert [record.path for record in reopened.missing(records)] == [record.path for record in records[8:]]
    assert reopened.add(records, thumbnail_extractor).added == 4
    assert reopened.missing(records) == []
    assert thumbnail_extractor.batches == [4, 4, 4]
    assert check(index.folder).damaged == ()


def test_a_failure_leaves_the_index_as_it_was(index, photo_folder, thumbnail_extractor):
    def failing(images):
        raise RuntimeError("out of memory")

    thumbnail_extractor.extract = failing
    sealed = sorted((index.folder / "segments").iterdir())
    (photo_folder / "later.png").write_bytes((photo_folder / "00.png").read_bytes())
    with pytest.raises(RuntimeError):
        index.add([ImageRecord("later.png")], thumbnail_extractor)
    assert len(PlaceIndex.open(index.folder)) == 12
    assert sorted((index.folder / "segments").iterdir()) == sealed


def test_an_interruption_in_the_middle_of_a_row_leaves_whole_rows(
    photo_folder, tmp_path, thumbnail_extractor, monkeypatch
):
    from vpr_dhe.index.segments import SegmentWriter

    write, written = SegmentWriter._write, []

    def interrupted(self, name, data):
        if len(written) == 9:
            raise KeyboardInterrupt
        written.append(name)
        write(self, name, data)

    monkeypatch.setattr(SegmentWriter, "_write", interrupted)
    index = PlaceIndex.create(tmp_path / "index", thumbnail_extractor.spec, photo_folder)
    with pytest.raises(KeyboardInterrupt):
        index.add(read_split(photo_folder).records, thumbnail_extractor)
    monkeypatch.undo()
    assert len(PlaceIndex.open(index.folder)) == 2
    assert check(index.folder).damaged == ()


def test_two_writers_lose_nothing(photo_folder, tmp_path, thumbnail_extractor):
    records = read_split(photo_folder).records
    first = PlaceIndex.create(tmp_path / "index", thumbnail_extractor.spec, photo_folder)
    second = PlaceIndex.open(tmp_path / "index")
    first.add(records[:5], thumbnail_extractor)
    second.add(records[3:9], thumbnail_extractor)
    assert len(PlaceIndex.open(tmp_path / "index")) == 9
    with writing(first.folder), pytest.raises(IndexBusyError, match="another process"):
        first.add(records, thumbnail_extractor)


def test_a_batch_of_unreadable_images_does_not_reach_the_extractor(photo_folder, tmp_path, thumbnail_extractor):
    (photo_folder / "zz.png").write_bytes(b"broken")
    index = PlaceIndex.create(tmp_path / "index", thumbnail_extractor.spec, photo_folder)
    assert index.add(read_split(photo_folder).records, thumbnail_extractor, batch_size=1).added == 12
    assert 0 not in thumbnail_extractor.batches


def test_an_image_that_was_mended_is_no_longer_skipped(photo_folder, tmp_path, thumbnail_extractor):
    whole = (photo_folder / "05.png").read_bytes()
    (photo_folder / "05.png").write_bytes(b"broken")
    index = PlaceIndex.create(tmp_path / "index", thumbnail_extractor.spec, photo_folder)
    records = read_split(photo_folder).records
    index.add(records, thumbnail_extractor)
    (photo_folder / "05.png").write_bytes(whole)
    index.add(records, thumbnail_extractor)
    assert (len(index), index.manifest.skipped) == (12, ())


def test_an_empty_index_finds_nothing_and_may_be_made_again(photo_folder, tmp_path, thumbnail_extractor):
    index = PlaceIndex.create(tmp_path / "index", thumbnail_extractor.spec, photo_folder)
    with pytest.raises(IndexFormatError, match="holds no images"):
        index.search(torch.ones(1, 256), 1)
    PlaceIndex.create(tmp_path / "index", thumbnail_extractor.spec, photo_folder)


def test_another_model_is_refused(index, other_extractor):
    with pytest.raises(IndexFormatError, match="was made with model"):
        index.add([ImageRecord("00.png")], other_extractor)


def test_an_existing_folder_is_never_overwritten(index, photo_folder, thumbnail_extractor):
    with pytest.raises(BadInputError, match="already exists"):
        PlaceIndex.create(index.folder, thumbnail_extractor.spec, photo_folder)


@pytest.mark.parametrize("name", ["vectors.f32", "local_maps.crc32", "images.jsonl"])
def test_a_flipped_byte_is_found_when_opening(index, name):
    flip_a_byte(segment(index, 1) / name, 5)
    with pytest.raises(IndexDamagedError, match=name):
        PlaceIndex.open(index.folder)
    assert check(index.folder).damaged == (f"{segment(index, 1).name}/{name}",)


def test_a_flipped_byte_in_a_local_map_is_found_when_that_map_is_read(index):
    flip_a_byte(segment(index, 1) / "local_maps.f16", 2 * 16 * 16 * 2 + 9)
    reopened = PlaceIndex.open(index.folder)
    reopened.local_maps([5, 6, 8, 9])
    with pytest.raises(IndexDamagedError, match="local map of image 2"):
        reopened.local_maps([0, 7])
    assert check(index.folder).damaged == (f"{segment(index, 1).name}/local_maps.f16",)


def test_a_missing_file_is_found(index):
    (segment(index, 2) / "vectors.f32").unlink()
    with pytest.raises(IndexDamagedError, match=r"vectors\.f32"):
        PlaceIndex.open(index.folder)


def test_a_changed_manifest_is_found(index):
    path = index.folder / "manifest.json"
    path.write_text(path.read_text().replace('"count": 5', '"count": 4', 1))
    with pytest.raises(IndexDamagedError, match="checksum"):
        PlaceIndex.open(index.folder)
    path.write_text("{")
    with pytest.raises(IndexDamagedError, match="parsed"):
        PlaceIndex.open(index.folder)
    path.write_text(json.dumps({"format": "something else"}))
    with pytest.raises(IndexFormatError, match="format"):
        PlaceIndex.open(index.folder)


def test_what_is_no_index_is_said_to_be_none(tmp_path):
    with pytest.raises(IndexFormatError, match="does not exist"):
        PlaceIndex.open(tmp_path / "none")
    with pytest.raises(IndexFormatError, match=r"holds no manifest\.json"):
        PlaceIndex.open(tmp_path)
