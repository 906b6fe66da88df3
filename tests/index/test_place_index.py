"""The index on disk: what goes in comes out, and what was damaged says so."""

import errno
import json
import os
import unicodedata
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from vpr_dhe.datasets.standard import read_split
from vpr_dhe.errors import (
    BadInputError,
    ImageError,
    IndexBusyError,
    IndexDamagedError,
    IndexFormatError,
    IndexReplacedError,
)
from vpr_dhe.images.decoding import decode_image
from vpr_dhe.index import snapshot, writer
from vpr_dhe.index.checking import check, repair
from vpr_dhe.index.compaction import mergeable_tail
from vpr_dhe.index.ingest import SealedChunk
from vpr_dhe.index.manifest import lock_for_writing
from vpr_dhe.index.place_index import PlaceIndex
from vpr_dhe.records import GeoPosition, ImageRecord, Size


@pytest.fixture
def index(photo_folder, tmp_path, thumbnail_extractor, monkeypatch) -> PlaceIndex:
    monkeypatch.setattr(writer, "SEGMENT_IMAGES", 5)
    index = new_index(photo_folder, tmp_path, thumbnail_extractor)
    index.add(read_split(photo_folder).records, thumbnail_extractor, batch_size=2)
    return index


def new_index(photo_folder, tmp_path, extractor) -> PlaceIndex:
    return PlaceIndex.create(tmp_path / "index", extractor.spec, photo_folder, codec="float16")


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
        assert found.ids[0, 0] == id
        assert found.similarities[0, 0] == pytest.approx(1, abs=1e-5)
        assert reopened.frame(id).image_size == Size(80 + id, 60)
        torch.testing.assert_close(reopened.local_maps([id])[0], features.local_map, rtol=0, atol=1e-3)


def test_local_maps_keep_the_order_asked_for_across_segments(index):
    everything = index.local_maps(range(12))
    wanted = [11, 0, 7, 7, 3]
    torch.testing.assert_close(index.local_maps(wanted), everything[wanted])


def test_search_asks_for_no_more_than_there_is(index):
    assert index.search(torch.ones(2, 256), 100).ids.shape == (2, 12)


def test_similarity_of_unnormalised_vectors_follows_their_distance(photo_folder, tmp_path, thumbnail_extractor):
    thumbnail_extractor.spec = replace(thumbnail_extractor.spec, unit_norm=False)
    index = PlaceIndex.create(tmp_path / "l2", thumbnail_extractor.spec, photo_folder)
    index.add(read_split(photo_folder).records, thumbnail_extractor)
    query = index.descriptors([4]) + 1.0
    found = index.search(query, 12)
    distances = torch.linalg.vector_norm(index.descriptors(range(12)) - query, dim=1).numpy()
    np.testing.assert_array_equal(found.ids[0], np.argsort(distances))
    np.testing.assert_allclose(found.similarities[0], 1 - np.sort(distances) ** 2 / 2, rtol=1e-3)


def test_unreadable_images_are_skipped_and_remembered(photo_folder, tmp_path, thumbnail_extractor):
    (photo_folder / "05.png").write_bytes(b"broken")
    index = new_index(photo_folder, tmp_path, thumbnail_extractor)
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
    index = new_index(photo_folder, tmp_path, thumbnail_extractor)
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
    assert reopened.add(records, thumbnail_extractor).added == 4
    assert reopened.add(records, thumbnail_extractor).unchanged == 12
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


def test_an_interruption_before_the_codec_is_chosen_keeps_what_was_extracted(
    photo_folder, tmp_path, thumbnail_extractor
):
    index = PlaceIndex.create(tmp_path / "index", thumbnail_extractor.spec, photo_folder)
    extract, calls = thumbnail_extractor.extract, []

    def interrupted_at_the_third_batch(images):
        calls.append(len(images))
        if len(calls) == 3:
            raise KeyboardInterrupt
        return extract(images)

    thumbnail_extractor.extract = interrupted_at_the_third_batch
    records = read_split(photo_folder).records
    with pytest.raises(KeyboardInterrupt):
        index.add(records, thumbnail_extractor, batch_size=3)
    assert len(PlaceIndex.open(index.folder)) == 6
    thumbnail_extractor.extract = extract
    assert index.add(records, thumbnail_extractor, batch_size=3).added == 6
    assert sorted(index.image(id).path for id in index.ids.tolist()) == [record.path for record in records]


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
    index = new_index(photo_folder, tmp_path, thumbnail_extractor)
    with pytest.raises(KeyboardInterrupt):
        index.add(read_split(photo_folder).records, thumbnail_extractor)
    monkeypatch.undo()
    assert len(PlaceIndex.open(index.folder)) == 2
    assert check(index.folder).damaged == ()


def test_two_writers_lose_nothing(photo_folder, tmp_path, thumbnail_extractor):
    records = read_split(photo_folder).records
    first = new_index(photo_folder, tmp_path, thumbnail_extractor)
    second = PlaceIndex.open(tmp_path / "index")
    first.add(records[:5], thumbnail_extractor)
    second.add(records[3:9], thumbnail_extractor)
    assert len(PlaceIndex.open(tmp_path / "index")) == 9
    with lock_for_writing(first.folder), pytest.raises(IndexBusyError, match="another process"):
        first.add(records, thumbnail_extractor)


def test_a_batch_of_unreadable_images_does_not_reach_the_extractor(photo_folder, tmp_path, thumbnail_extractor):
    (photo_folder / "zz.png").write_bytes(b"broken")
    index = new_index(photo_folder, tmp_path, thumbnail_extractor)
    assert index.add(read_split(photo_folder).records, thumbnail_extractor, batch_size=1).added == 12
    assert 0 not in thumbnail_extractor.batches


def test_an_image_that_was_mended_is_no_longer_skipped(photo_folder, tmp_path, thumbnail_extractor):
    whole = (photo_folder / "05.png").read_bytes()
    (photo_folder / "05.png").write_bytes(b"broken")
    index = new_index(photo_folder, tmp_path, thumbnail_extractor)
    records = read_split(photo_folder).records
    index.add(records, thumbnail_extractor)
    (photo_folder / "05.png").write_bytes(whole)
    index.add(records, thumbnail_extractor)
    assert (len(index), index.manifest.skipped) == (12, ())


def test_an_empty_index_finds_nothing_and_may_be_made_again(photo_folder, tmp_path, thumbnail_extractor):
    index = new_index(photo_folder, tmp_path, thumbnail_extractor)
    with pytest.raises(IndexFormatError, match="holds no images"):
        index.search(torch.ones(1, 256), 1)
    new_index(photo_folder, tmp_path, thumbnail_extractor)


def test_another_model_is_refused(index, other_extractor):
    with pytest.raises(IndexFormatError, match="was made with model"):
        index.add([ImageRecord("00.png")], other_extractor)


def test_an_existing_folder_is_never_overwritten(index, photo_folder, thumbnail_extractor):
    with pytest.raises(BadInputError, match="already exists"):
        PlaceIndex.create(index.folder, thumbnail_extractor.spec, photo_folder)


@pytest.mark.parametrize("name", ["rows.bin"])
def test_a_flipped_byte_is_found_when_opening(index, name):
    flip_a_byte(segment(index, 1) / name, 5)
    with pytest.raises(IndexDamagedError, match=name):
        PlaceIndex.open(index.folder)
    assert check(index.folder).damaged == (f"segments/{segment(index, 1).name}/{name}",)


@pytest.mark.parametrize(
    ("name", "use"),
    [
        ("vectors.f32", lambda index: index.search(torch.ones(1, 256), 1)),
        ("vectors.f32", lambda index: index.descriptors([5])),
        ("images.jsonl", lambda index: index.image(5)),
        ("local_maps.bin", lambda index: index.local_maps([5])),
    ],
)
def test_a_flipped_byte_is_found_when_that_record_is_used(index, name, use):
    flip_a_byte(segment(index, 1) / name, 7)
    reopened = PlaceIndex.open(index.folder)
    reopened.local_maps([6, 8, 9])
    with pytest.raises(IndexDamagedError, match=name):
        use(reopened)
    assert check(index.folder).damaged == (f"segments/{segment(index, 1).name}/{name}",)


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


def paths(index: PlaceIndex) -> set[str]:
    return {index.image(int(id)).path for id in index.ids}


def test_indexing_again_extracts_only_what_is_new_or_has_another_content(index, photo_folder, thumbnail_extractor):
    untouched, touched, changed = (photo_folder / f"{number:02d}.png" for number in (0, 1, 2))
    os.utime(touched, ns=(1, 1))
    before = index.find("02.png")
    changed.write_bytes(untouched.read_bytes())
    (photo_folder / "new.png").write_bytes((photo_folder / "05.png").read_bytes())
    thumbnail_extractor.batches.clear()
    report = index.add(read_split(photo_folder).records, thumbnail_extractor)
    assert sum(thumbnail_extractor.batches) == 2
    assert (report.added, report.replaced, report.updated, report.unchanged) == (1, 1, 0, 11)
    assert len(index) == 13
    reopened = PlaceIndex.open(index.folder)
    after = reopened.find("02.png")
    assert after != before
    torch.testing.assert_close(reopened.local_maps([after]), reopened.local_maps([reopened.find("00.png")]))
    with pytest.raises(BadInputError, match="removed"):
        reopened.local_maps([before])
    assert reopened.duplicates() == [(0, after), (5, reopened.find("new.png"))]


@pytest.mark.parametrize("heading_deg", [None, 30.0])
@pytest.mark.parametrize("links", [True, False])
def test_a_file_that_has_only_a_new_time_is_read_once_more(
    index, photo_folder, thumbnail_extractor, monkeypatch, heading_deg, links
):
    if not links:  # as on FAT
        monkeypatch.setattr(Path, "hardlink_to", lambda *_: (_ for _ in ()).throw(PermissionError("no links")))
    read, read_bytes = [], Path.read_bytes
    monkeypatch.setattr(Path, "read_bytes", lambda path: read.append(path.name) or read_bytes(path))
    before = index.descriptors(index.ids), index.local_maps(index.ids), index.image(2)
    os.utime(photo_folder / "01.png", ns=(1, 1))
    first, *others = read_split(photo_folder).records[1:]
    counts = []
    for _ in range(2):
        report = index.add([replace(first, heading_deg=heading_deg), *others], thumbnail_extractor)
        counts.append((report.added, report.replaced, report.updated, report.unchanged))
    assert read.count("01.png") == 1
    updated = heading_deg is not None
    assert counts == [(0, 0, int(updated), 11 - updated), (0, 0, 0, 11)]
    reopened = PlaceIndex.open(index.folder)
    assert (reopened.image(1).heading_deg, reopened.image(2)) == (heading_deg, before[2])
    torch.testing.assert_close((reopened.descriptors(reopened.ids), reopened.local_maps(reopened.ids)), before[:2])
    assert not check(index.folder).damaged
    kept = {segment.name for segment in reopened.snapshot.segments}
    assert {path.name for path in (index.folder / "segments").iterdir()} == kept


@pytest.mark.parametrize("few", [0, 64])
def test_a_replaced_image_is_found_under_its_new_id(index, photo_folder, thumbnail_extractor, few, monkeypatch):
    monkeypatch.setattr("vpr_dhe.index.snapshot._FEW_LOOKUPS", few)
    before = {id: index.image(id).path for id in index.ids.tolist()}
    (photo_folder / before[0]).write_bytes((photo_folder / before[1]).read_bytes())

    index.add([ImageRecord(before[0])], thumbnail_extractor)

    assert index.find(before[0]) == max(before) + 1
    assert [index.find(path) for id, path in before.items() if id] == [id for id in before if id]
    assert index.find("unknown.png") is None


def test_positions_that_become_known_are_taken_over_without_extraction(index, photo_folder, thumbnail_extractor):
    thumbnail_extractor.batches.clear()
    ids, vectors, maps = index.ids, index.descriptors(index.ids), index.local_maps(index.ids)
    records = [replace(r, position=GeoPosition(48.0, float(n))) for n, r in enumerate(read_split(photo_folder).records)]
    report = index.add(records, thumbnail_extractor)
    assert (report.updated, report.unchanged, thumbnail_extractor.batches) == (12, 0, [])
    reopened = PlaceIndex.open(index.folder)
    np.testing.assert_array_equal(reopened.ids, ids)
    assert [reopened.image(int(id)) for id in ids] == records
    torch.testing.assert_close(reopened.descriptors(ids), vectors, rtol=0, atol=0)
    torch.testing.assert_close(reopened.local_maps(ids), maps, rtol=0, atol=0)
    assert index.add(read_split(photo_folder).records, thumbnail_extractor).unchanged == 12
    assert index.image(3).position == GeoPosition(48.0, 3.0)


def test_removed_images_are_gone_and_never_come_back_under_their_id(index, photo_folder, thumbnail_extractor):
    vector, path = index.descriptors([6]), index.image(6).path
    index.remove([6, 0])
    for state in (index, PlaceIndex.open(index.folder)):
        assert len(state) == 10
        assert not {0, 6} & set(state.search(vector, 12).ids[0].tolist())
        assert state.search(vector, 12).ids.shape == (1, 10)
        assert state.find(path) is None
        for use in (state.local_maps, state.descriptors, lambda ids, state=state: state.image(ids[0])):
            with pytest.raises(BadInputError, match="removed"):
                use([6])
    with pytest.raises(BadInputError, match="id 6"):
        index.remove([3, 6])
    assert len(index) == 10
    assert index.add(read_split(photo_folder).records, thumbnail_extractor).added == 2
    assert sorted(index.ids)[-2:] == [12, 13]


def test_compaction_keeps_every_image_under_its_id(index):
    index.remove([1, 2, 11])
    ids = index.ids
    before = index.descriptors(ids), index.local_maps(ids), [index.image(int(id)) for id in ids]
    found = index.search(before[0], 9)
    size = sum(file.stat().st_size for file in index.folder.rglob("*") if file.is_file())
    index.compact()
    assert len(index.manifest.segments) == 1
    assert index.manifest.removed_count == 0
    assert sum(file.stat().st_size for file in index.folder.rglob("*") if file.is_file()) < size
    assert len(list((index.folder / "segments").iterdir())) == 1
    for state in (index, PlaceIndex.open(index.folder)):
        np.testing.assert_array_equal(state.ids, ids)
        after = state.descriptors(ids), state.local_maps(ids), [state.image(int(id)) for id in ids]
        assert after[2] == before[2]
        torch.testing.assert_close(after[:2], before[:2], rtol=0, atol=0)
        np.testing.assert_array_equal(state.search(before[0], 9).ids, found.ids)
        np.testing.assert_array_equal(state.search(before[0], 9).similarities, found.similarities)
    sealed = index.manifest
    index.compact()
    assert index.manifest == sealed


def test_a_reader_keeps_what_it_opened_through_a_compaction(index):
    reader = PlaceIndex.open(index.folder)
    before = reader.local_maps(range(12))
    index.remove([4])
    index.compact()
    torch.testing.assert_close(reader.local_maps(range(12)), before, rtol=0, atol=0)
    assert reader.search(reader.descriptors([4]), 1).ids[0, 0] == 4
    assert reader.refresh()
    assert reader.search(reader.descriptors([3]), 12).ids.shape == (1, 11)
    assert not reader.refresh()


def test_an_index_replaced_by_one_of_another_model_is_refused_and_the_open_one_stays(
    photo_folder, thumbnail_extractor, other_extractor, tmp_path
):
    records, folders = read_split(photo_folder).records, [tmp_path / "index", tmp_path / "other"]
    for folder, extractor in zip(folders, (thumbnail_extractor, other_extractor), strict=True):
        PlaceIndex.create(folder, extractor.spec, photo_folder, codec="float16").add(records, extractor)
    opened = PlaceIndex.open(folders[0])
    before = opened.descriptors(opened.ids)
    folders[0].rename(tmp_path / "away")
    folders[1].rename(folders[0])
    for _ in range(2):
        with pytest.raises(IndexReplacedError, match="open it again"):
            opened.refresh()
    torch.testing.assert_close(opened.descriptors(opened.ids), before)
    assert opened.spec.fingerprint == thumbnail_extractor.spec.fingerprint


def test_an_empty_index_replaced_by_one_of_another_model_is_refused(
    photo_folder, thumbnail_extractor, other_extractor, tmp_path
):
    opened = PlaceIndex.create(tmp_path / "index", thumbnail_extractor.spec, photo_folder, codec="float16")
    assert not opened.refresh()
    PlaceIndex.create(tmp_path / "index", other_extractor.spec, photo_folder, codec="float16")
    with pytest.raises(IndexReplacedError, match="open it again"):
        opened.refresh()
    records = read_split(photo_folder).records
    with pytest.raises((IndexReplacedError, IndexFormatError)):
        opened.add(records, thumbnail_extractor)
    assert PlaceIndex.open(tmp_path / "index").add(records, other_extractor).added == 12


def test_photos_on_a_drive_that_does_not_answer_are_not_needed(index, monkeypatch):
    def stale(path: Path) -> bool:
        raise OSError(errno.ESTALE, "Stale file handle", str(path))

    monkeypatch.setattr(Path, "is_dir", stale)
    again = PlaceIndex.open(index.folder)
    assert again.search(index.descriptors([4]), 1).ids.item() == 4


def test_new_positions_leave_faiss_files_over_segments_with_removed_images(index, photo_folder, thumbnail_extractor):
    index.configure(index_type="hnsw")
    index.build_vector_files()
    index.remove([4])
    files = index.manifest.vector_files
    records = [
        replace(record, heading_deg=5.0) for record in read_split(photo_folder).records if record.path != "04.png"
    ]
    assert index.add(records, thumbnail_extractor).updated == 11
    assert [file.file for file in index.manifest.vector_files] == [file.file for file in files]
    found = index.search(index.descriptors([3]), 12)
    assert sorted(found.ids[0].tolist()) == [0, 1, 2, 3, *range(5, 12)]
    index.compact()
    assert PlaceIndex.open(index.folder).image(3).heading_deg == 5.0


def test_one_image_without_a_finite_descriptor_is_skipped(photo_folder, tmp_path, thumbnail_extractor):
    extract = thumbnail_extractor.extract

    def overflowing(images):
        return [
            replace(one, global_descriptor=one.global_descriptor * (np.inf if image.mean() == dark else 1))
            for one, image in zip(extract(images), images, strict=True)
        ]

    dark = decode_image(photo_folder / "04.png").mean()
    thumbnail_extractor.extract = overflowing
    index, records = new_index(photo_folder, tmp_path, thumbnail_extractor), read_split(photo_folder).records
    with pytest.raises(ImageError, match=r"04\.png: the model gave a descriptor that is not finite"):
        index.add(records, thumbnail_extractor, strict=True)
    report = index.add(records, thumbnail_extractor)
    assert [image.path for image in report.skipped] == ["04.png"]
    assert len(index) == 11


def test_lists_of_removed_images_do_not_pile_up_while_many_are_replaced(index, monkeypatch):
    monkeypatch.setattr(writer, "_CHUNKS_PER_COLLECTION", 4)
    kept: list[int] = []
    with index.writing() as open_writer:
        for id in range(11):
            chunk = SealedChunk(None, frozenset({"replaced"}), (), open_writer.manifest.next_id)
            open_writer.accept(chunk, {"replaced": id})
            kept.append(len(list((index.folder / "state").glob("removed-*"))))
    assert max(kept) == 4
    assert index.ids.tolist() == [11]


def test_an_emptied_index_takes_another_codec(index, photo_folder, thumbnail_extractor):
    index.remove(index.ids.tolist())
    index.compact(codec="int8")
    index.add(read_split(photo_folder).records, thumbnail_extractor)
    assert PlaceIndex.open(index.folder).manifest.codec.name == "int8"


def test_names_in_another_unicode_form_are_found_together(photo_folder, tmp_path, thumbnail_extractor):
    composed, decomposed = (
        [unicodedata.normalize(form, f"caf\u00e9{n}.png") for n in range(2)] for form in ("NFC", "NFD")
    )
    for name in decomposed:
        (photo_folder / name).write_bytes((photo_folder / "00.png").read_bytes())
    index = new_index(photo_folder, tmp_path, thumbnail_extractor)
    index.add([ImageRecord(name) for name in decomposed], thumbnail_extractor)
    assert index.ids_of(composed) == index.ids_of(decomposed) == [0, 1]
    assert index.ids_of([photo_folder / name for name in composed]) == [0, 1]


def test_removing_everything_leaves_an_index_that_grows_again(index, photo_folder, thumbnail_extractor):
    index.remove(index.ids.tolist())
    with pytest.raises(IndexFormatError, match="holds no images"):
        index.search(torch.ones(1, 256), 1)
    index.compact()
    assert index.manifest.segments == ()
    assert index.add(read_split(photo_folder).records[:3], thumbnail_extractor).added == 3
    assert index.ids.tolist() == [12, 13, 14]


def test_images_added_one_by_one_end_in_few_segments(photo_folder, tmp_path, thumbnail_extractor):
    index = new_index(photo_folder, tmp_path, thumbnail_extractor)
    for record in read_split(photo_folder).records:
        index.add([record], thumbnail_extractor)
    assert [info.count for info in index.manifest.segments] == [8, 1, 1, 1, 1]
    assert len(list((index.folder / "segments").iterdir())) == 5
    assert index.ids.tolist() == list(range(12))


def grown(sizes: Iterable[int]) -> tuple[list[int], int]:
    """Sizes of the segments after adding these, and how many images were copied on the way."""
    counts: list[int] = []
    copied = 0
    for size in sizes:
        counts.append(size)
        while length := mergeable_tail(counts):
            copied += sum(counts[-length:])
            counts[-length:] = [sum(counts[-length:])]
    return counts, copied


@pytest.mark.parametrize(
    "sizes",
    [
        [256] + 976 * [1024],
        667 * [1024, 476],
        20_000 * [50],
        100_000 * [1],
        [*(500 * [1]), *(300 * [1024])],
    ],
)
def test_a_million_images_stay_in_few_segments_however_they_come(sizes):
    counts, copied = grown(sizes)
    assert sum(counts) == sum(sizes)
    assert len(counts) < 200
    assert copied <= 7 * sum(sizes)


@given(st.lists(st.integers(1, 1024), min_size=1, max_size=300))
def test_growing_copies_each_image_a_few_times(sizes):
    counts, copied = grown(sizes)
    assert sum(counts) == sum(sizes)
    assert copied <= 7 * sum(sizes)
    assert len(counts) <= 64 + sum(sizes) / 2048


def test_growing_leaves_faiss_files_alone(index, photo_folder, thumbnail_extractor):
    index.configure(index_type="hnsw")
    index.build_vector_files()
    built = index.manifest.vector_files
    for number in range(10):
        (photo_folder / f"new{number}.png").write_bytes((photo_folder / f"{number:02d}.png").read_bytes()[:-1] + b"x")
        index.add([ImageRecord(f"new{number}.png")], thumbnail_extractor)
    assert index.manifest.vector_files == built
    assert len(index) == 22
    assert len(index.manifest.segments) < 3 + 10


def test_a_reader_that_opens_during_a_compaction_gets_the_new_state(index, monkeypatch):
    from vpr_dhe.index.segments import Segment

    index.remove([1])
    require, compacted = Segment._require_checksum, []

    def compacting_meanwhile(self, name, content):
        if not compacted:
            compacted.append(True)
            index.compact()
        require(self, name, content)

    monkeypatch.setattr(Segment, "_require_checksum", compacting_meanwhile)
    assert len(PlaceIndex.open(index.folder)) == 11
    assert compacted


def test_ids_are_not_given_out_again_to_an_index_that_was_emptied(index, photo_folder, tmp_path, thumbnail_extractor):
    index.remove(index.ids.tolist())
    index.compact()
    assert PlaceIndex.has_images(index.folder)
    with pytest.raises(BadInputError, match="already exists"):
        new_index(photo_folder, tmp_path, thumbnail_extractor)


def test_a_file_that_changes_while_it_is_read_is_seen_to_have_changed(index, photo_folder, thumbnail_extractor):
    path = photo_folder / "00.png"
    other = (photo_folder / "01.png").read_bytes()
    path.write_bytes(other + b"x")
    from vpr_dhe.index import ingest

    read = ingest.read_file

    def overwritten_meanwhile(given, max_pixels):
        content = read(given, max_pixels)
        if given == path:
            path.write_bytes(content[:-1] + b"y")
        return content

    ingest.read_file = overwritten_meanwhile
    try:
        index.add([ImageRecord("00.png")], thumbnail_extractor)
    finally:
        ingest.read_file = read
    assert index.add([ImageRecord("00.png")], thumbnail_extractor).replaced == 1


def test_writing_goes_on_where_a_copy_left_empty_folders_out(index):
    (index.folder / "vectors").rmdir()
    index.remove([0])
    assert len(PlaceIndex.open(index.folder)) == 11


def test_a_codec_that_was_chosen_on_one_image_is_chosen_again(photo_folder, tmp_path, thumbnail_extractor):
    records = read_split(photo_folder).records
    index = PlaceIndex.create(tmp_path / "index", thumbnail_extractor.spec, photo_folder)
    index.add(records[:1], thumbnail_extractor)
    index.add(records, thumbnail_extractor)
    assert index.manifest.codec is not None
    assert (index.manifest.codec.name, index.manifest.codec.images) == ("float16", 1)
    index.compact()
    assert index.manifest.codec.trials is not None
    tried = set(index.manifest.codec.trials.fidelity)
    assert (index.manifest.codec.images, tried) == (12, {"float16", "int8", "binary"})


def test_repair_drops_a_damaged_segment_which_is_then_extracted_again(index, photo_folder, thumbnail_extractor):
    index.remove([7])
    flip_a_byte(segment(index, 1) / "local_maps.bin", 100)
    assert repair(index.folder) == 4
    assert check(index.folder).damaged == ()
    mended = PlaceIndex.open(index.folder)
    assert mended.ids.tolist() == [0, 1, 2, 3, 4, 10, 11]
    thumbnail_extractor.batches.clear()
    mended.add(read_split(photo_folder).records, thumbnail_extractor)
    assert sum(thumbnail_extractor.batches) == 5
    assert paths(mended) == {record.path for record in read_split(photo_folder).records}


def test_damage_is_not_copied_by_a_compaction(index):
    flip_a_byte(segment(index, 1) / "local_maps.bin", 100)
    with pytest.raises(IndexDamagedError, match="local map of row 0"):
        index.compact()
    assert check(index.folder).damaged == (f"segments/{segment(index, 1).name}/local_maps.bin",)


def test_what_no_manifest_names_is_ignored_and_swept_up_by_the_next_writer(index, photo_folder, thumbnail_extractor):
    leftover = index.folder / "segments" / "000000005-deadbeef.writing"
    leftover.mkdir()
    (leftover / "rows.bin").write_bytes(b"half")
    assert len(PlaceIndex.open(index.folder)) == 12
    index.add(read_split(photo_folder).records, thumbnail_extractor)
    assert not leftover.exists()


@pytest.mark.parametrize("index_type", ["hnsw", "rabitq"])
def test_an_index_with_faiss_files_answers_as_a_flat_one_does(
    index_type, photo_folder, tmp_path, thumbnail_extractor, index
):
    index.configure(index_type=index_type)
    index.build_vector_files()
    assert len(index.manifest.vector_files) == 1
    reopened = PlaceIndex.open(index.folder)
    queries = reopened.descriptors(range(12))
    np.testing.assert_array_equal(reopened.search(queries, 1).ids[:, 0], np.arange(12))
    reopened.remove([3])
    assert reopened.search(queries, 1).ids[3, 0] != 3
    flip_a_byte(index.folder / "vectors" / reopened.manifest.vector_files[0].file.name, 60)
    with pytest.raises(IndexDamagedError, match="faiss"):
        PlaceIndex.open(index.folder).search(queries, 1)
    assert repair(index.folder) == 0
    reopened.compact()
    assert len(reopened.manifest.vector_files) == 1
    assert reopened.search(queries, 1).ids[4, 0] == 4


def test_a_folder_below_the_indexed_one_may_be_added(photo_folder, tmp_path, thumbnail_extractor):
    index = new_index(photo_folder, tmp_path, thumbnail_extractor)
    part = read_split(photo_folder / "sub").records
    with pytest.raises(BadInputError, match="--add"):
        index.relative_to_root(part, photo_folder / "sub")
    index.add(index.relative_to_root(part, photo_folder / "sub", part=True), thumbnail_extractor)
    assert paths(index) == {"sub/10.png", "sub/11.png"}
    with pytest.raises(BadInputError, match="indexes"):
        index.relative_to_root(part, tmp_path, part=True)
    gone = index.ids_missing_from([ImageRecord("sub/10.png")])
    assert [index.image(int(id)).path for id in gone] == ["sub/11.png"]


def test_another_codec_is_refused_once_images_are_stored(index):
    index.configure(codec="float16")
    with pytest.raises(BadInputError, match="stores local maps as float16"):
        index.configure(codec="int8")
    with pytest.raises(BadInputError, match="index type 'tree' is unknown; expected auto, flat"):
        index.configure(index_type="tree")


def test_local_maps_can_be_stored_anew_with_another_codec(index):
    index.configure(index_type="ivf-flat")
    index.build_vector_files()
    index.remove([2])
    before, ids = index.local_maps(index.ids), index.ids
    index.compact(codec="int8")
    for state in (index, PlaceIndex.open(index.folder)):
        assert state.manifest.codec is not None
        assert (state.manifest.codec.name, state.manifest.settings.codec) == ("int8", "int8")
        assert state.snapshot.require_codec().record_bytes == 16 * 16 + 4
        np.testing.assert_array_equal(state.ids, ids)
        torch.testing.assert_close(state.local_maps(ids), before, rtol=0, atol=0.02)
        assert len(state.search(state.descriptors([5]), 11).ids[0]) == 11
    assert check(index.folder).damaged == ()
    assert len(index.manifest.vector_files) == 1
    with pytest.raises(BadInputError, match="codec 'zip' is unknown"):
        index.compact(codec="zip")


def test_many_paths_are_looked_up_as_one_by_one(index, photo_folder, thumbnail_extractor, monkeypatch):
    monkeypatch.setattr(snapshot, "_FEW_LOOKUPS", 0)
    records = read_split(photo_folder).records
    index.remove([index.find(records[1].path)])
    names = [*(record.path for record in records), "absent.png"]
    found = index.snapshot.find_all(names).tolist()
    assert found == [-1 if (id := index.find(name)) is None else id for name in names]
    present = [id for id in found if id >= 0]
    stamps = [index.snapshot.stamp(id) for id in present]
    assert index.snapshot.file_stats(present) == [(stamp.bytes, stamp.modified_ns) for stamp in stamps]
    report = index.add(records, thumbnail_extractor)
    assert (report.added, report.unchanged) == (1, len(records) - 1)
