"""Features of queries: the same in any batch and from the cache, and extracted once."""

from copy import copy
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from vpr_dhe.datasets import read_places
from vpr_dhe.datasets.base import PlaceSplit
from vpr_dhe.errors import IndexBusyError
from vpr_dhe.evaluation import place_evaluation, query_features
from vpr_dhe.evaluation.feature_cache import FeatureCache
from vpr_dhe.evaluation.place_evaluation import Settings, evaluate_dataset
from vpr_dhe.evaluation.query_features import extract_queries
from vpr_dhe.features.extractor import load_extractor
from vpr_dhe.images.decoding import decode_image
from vpr_dhe.images.listing import list_images
from vpr_dhe.index.manifest import SkippedImage, lock_for_writing
from vpr_dhe.records import Features, ImageRecord
from vpr_dhe.verification.build import build_estimator
from vpr_dhe.verification.verifier import Verifier


@pytest.fixture
def photos(photo_folder) -> PlaceSplit:
    """Twelve photos, the fourth of which is damaged."""
    split = PlaceSplit(photo_folder, tuple(ImageRecord(path) for path in list_images(photo_folder)))
    (photo_folder / split.records[3].path).write_bytes(b"no image")
    return split


@pytest.fixture
def small_files(monkeypatch) -> None:
    monkeypatch.setattr(query_features, "_QUERIES_PER_FILE", 5)


def same(found, expected) -> bool:
    """Whether features agree to the last bit, and unreadable queries in their reasons."""
    if isinstance(expected, SkippedImage):
        return found == expected
    return (
        torch.equal(found.global_descriptor, expected.global_descriptor)
        and torch.equal(found.local_map, expected.local_map)
        and found.local_map.dtype == expected.local_map.dtype
        and (found.grid, found.frame) == (expected.grid, expected.frame)
    )


def one_by_one(split: PlaceSplit, extractor) -> list[Features | SkippedImage]:
    readable = [row for row in range(12) if row != 3]
    alone = {row: extractor.extract([decode_image(split.folder / split.records[row].path)])[0] for row in readable}
    unreadable = SkippedImage(split.records[3].path, "not an image in a supported format")
    return [alone.get(row, unreadable) for row in range(12)]


@pytest.mark.parametrize("batch_size", [1, 3, 8])
def test_features_of_the_default_model_do_not_depend_on_the_batch(photos, batch_size, threads, small_files):
    extractor = load_extractor("sift-vlad")
    found = list(extract_queries(photos, extractor, batch_size))
    assert len(found) == 12
    assert all(same(*pair) for pair in zip(found, one_by_one(photos, extractor), strict=True))


def test_features_of_a_network_depend_on_the_batch_in_their_last_digit_at_most(photos):
    extractor = load_extractor("cct-offline")
    for found, alone in zip(extract_queries(photos, extractor, 8), one_by_one(photos, extractor), strict=True):
        if isinstance(alone, Features):
            torch.testing.assert_close(found.global_descriptor, alone.global_descriptor, rtol=0, atol=2e-7)
            torch.testing.assert_close(found.local_map, alone.local_map, rtol=0, atol=2e-7)


def test_batches_are_as_large_as_they_may_be(photos, thumbnail_extractor, small_files):
    list(extract_queries(photos, thumbnail_extractor, 3))
    # Files of 5, 5 and 2 queries, one of the first unreadable.
    assert thumbnail_extractor.batches == [3, 1, 3, 2, 2]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_the_cache_returns_exactly_what_was_extracted(photos, thumbnail_extractor, tmp_path, small_files, dtype):
    extract = thumbnail_extractor.extract
    thumbnail_extractor.extract = lambda images: [
        replace(one, local_map=one.local_map.to(dtype)) for one in extract(images)
    ]
    cache = FeatureCache(tmp_path / "cache")
    done = []
    first = list(cache.queries(photos, thumbnail_extractor, progress=done.append))
    extracted = sum(thumbnail_extractor.batches)
    assert (extracted, sum(done)) == (11, 12)
    stored = cache.queries(photos, thumbnail_extractor)
    again, once_more = list(stored), list(stored)
    assert sum(thumbnail_extractor.batches) == extracted
    for found in (first, again, once_more):
        assert all(same(*pair) for pair in zip(found, one_by_one(photos, thumbnail_extractor), strict=True))


def test_what_features_depend_on_is_extracted_again(photos, thumbnail_extractor, other_extractor, tmp_path):
    cache = FeatureCache(tmp_path / "cache")
    in_bf16 = copy(thumbnail_extractor)
    in_bf16.arithmetic = "torch cpu bf16"
    changed = ((photos, in_bf16), (photos, other_extractor), (replace(photos, records=photos.records[:4]), in_bf16))
    for extract in (cache.queries, cache.index):
        extract(photos, thumbnail_extractor)
        for split, extractor in changed:
            before = len(list((tmp_path / "cache").iterdir()))
            extract(split, extractor)
            assert len(list((tmp_path / "cache").iterdir())) == before + 1
    first = photos.folder / photos.records[0].path
    first.write_bytes((photos.folder / photos.records[1].path).read_bytes())
    found = list(cache.queries(photos, thumbnail_extractor))
    assert torch.equal(found[0].local_map, found[1].local_map)


def test_an_interrupted_extraction_resumes(photos, thumbnail_extractor, tmp_path, small_files):
    extract = thumbnail_extractor.extract

    def interrupted(images):
        if sum(thumbnail_extractor.batches) >= 6:
            raise KeyboardInterrupt
        return extract(images)

    thumbnail_extractor.extract = interrupted
    cache = FeatureCache(tmp_path / "cache")
    with pytest.raises(KeyboardInterrupt):
        cache.queries(photos, thumbnail_extractor, batch_size=2)
    thumbnail_extractor.extract, thumbnail_extractor.batches = extract, []
    found = list(cache.queries(photos, thumbnail_extractor, batch_size=8))
    assert thumbnail_extractor.batches == [5, 2]
    assert all(same(*pair) for pair in zip(found, one_by_one(photos, thumbnail_extractor), strict=True))


@pytest.mark.parametrize("damage", [b"", b"no such file" * 9])
def test_a_damaged_file_is_extracted_again(photos, thumbnail_extractor, tmp_path, small_files, damage):
    cache = FeatureCache(tmp_path / "cache")
    cache.queries(photos, thumbnail_extractor)
    (files,) = ([*folder.glob("*.safetensors")] for folder in (tmp_path / "cache").iterdir())
    sorted(files)[1].write_bytes(damage)
    thumbnail_extractor.batches = []
    found = list(cache.queries(photos, thumbnail_extractor))
    assert thumbnail_extractor.batches == [5]
    assert all(same(*pair) for pair in zip(found, one_by_one(photos, thumbnail_extractor), strict=True))


def test_queries_that_cannot_be_read_at_all(photos, thumbnail_extractor, tmp_path):
    for record in photos.records:
        (photos.folder / record.path).write_bytes(b"no image")
    found = list(FeatureCache(tmp_path / "cache").queries(photos, thumbnail_extractor))
    assert [one.path for one in found] == [record.path for record in photos.records]


def test_two_processes_do_not_write_the_same_features(photos, thumbnail_extractor, tmp_path):
    cache = FeatureCache(tmp_path / "cache")
    cache.queries(photos, thumbnail_extractor)
    (folder,) = (tmp_path / "cache").iterdir()
    with lock_for_writing(folder), pytest.raises(IndexBusyError):
        cache.queries(photos, thumbnail_extractor)


def test_all_variants_cost_one_extraction(place_tree, thumbnail_extractor, tmp_path, monkeypatch):
    monkeypatch.setattr(place_evaluation, "_TIMED_QUERIES", 4)
    dataset = read_places(place_tree())
    cache = FeatureCache(tmp_path / "cache")
    index = cache.index(dataset.database, thumbnail_extractor)
    assert sum(thumbnail_extractor.batches) == 24
    queries = cache.queries(dataset.queries, thumbnail_extractor)
    thumbnail_extractor.batches = []
    verifiers = {"magsac": Verifier(build_estimator("magsac"))}
    variants = [Settings((1, 5), rerank=3), Settings((1, 5), rerank=4, rank_by="evidence")]
    cached = [
        evaluate_dataset(dataset, index, thumbnail_extractor, verifiers, one, queries=queries) for one in variants
    ]
    assert thumbnail_extractor.batches == [1] * 8
    uncached = evaluate_dataset(dataset, index, thumbnail_extractor, verifiers, variants[1])
    assert thumbnail_extractor.batches[8:] == [8, 4, 1, 1, 1, 1]
    for one, other in zip(cached[1].methods, uncached.methods, strict=True):
        assert one.predictions == other.predictions


@pytest.mark.parametrize("uses_images", [False, True])
def test_queries_are_decoded_again_for_verifiers_that_use_pixels_alone(
    place_tree, thumbnail_extractor, tmp_path, monkeypatch, uses_images
):
    dataset = read_places(place_tree())
    index = FeatureCache(tmp_path).index(dataset.database, thumbnail_extractor)
    queries = list(extract_queries(dataset.queries, thumbnail_extractor))
    estimator = build_estimator("magsac")
    estimator.uses_images = uses_images
    decoded: list[Path] = []
    monkeypatch.setattr(
        place_evaluation, "decode_named", lambda path, *_: decoded.append(path) or np.zeros((48, 64, 3), np.uint8)
    )
    evaluate_dataset(dataset, index, thumbnail_extractor, {"one": Verifier(estimator)}, queries=queries)
    assert len(decoded) == (24 if uses_images else 12)  # twelve of them for the time of extraction
