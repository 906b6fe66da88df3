"""Queries made of indexed images."""

from dataclasses import replace

import cv2
import numpy as np
import PIL.Image
import pytest

from vpr_dhe.datasets.standard import read_split
from vpr_dhe.evaluation.calibration.examples import run_queries
from vpr_dhe.evaluation.calibration.warped_queries import warped_queries
from vpr_dhe.images.decoding import decode_image
from vpr_dhe.index.place_index import PlaceIndex
from vpr_dhe.localization.database import PinnedIndex
from vpr_dhe.records import ImageRecord, MetricPosition


@pytest.fixture
def index(photo_folder, tmp_path, thumbnail_extractor) -> PlaceIndex:
    """Twelve photos: pairs of two that are 20 m apart, and 100 m from the next pair; the last two are single."""
    index = PlaceIndex.create(tmp_path / "index", thumbnail_extractor.spec, photo_folder, codec="float16")
    places_m = [100.0 * (number // 2) + 20.0 * (number % 2) for number in range(10)] + [1000.0, 1100.0]
    records = [
        ImageRecord(record.path, MetricPosition(place_m, 0.0))
        for record, place_m in zip(read_split(photo_folder).records, places_m, strict=True)
    ]
    index.add(records, thumbnail_extractor)
    return index


def test_a_view_is_shown_by_what_is_near_its_image_but_not_by_that(index):
    queries = warped_queries(index, 100, 25.0)
    assert len(queries) == 12
    for query in queries:
        own = index.find(query.name)
        x_m = index.image(own).position.x_m
        near = {int(id) for id in index.ids if abs(index.image(int(id)).position.x_m - x_m) <= 25.0}
        assert query.withheld == (frozenset([own]) if len(near) > 1 else frozenset())
        assert query.shown_by == near - query.withheld


def test_views_are_the_same_each_time(index):
    first, again = (warped_queries(index, 3, 25.0) for _ in range(2))
    assert [query.name for query in first] == [query.name for query in again]
    for query, same in zip(first, again, strict=True):
        view = query.load()
        assert view.shape == (16, 16, 3)
        np.testing.assert_array_equal(view, same.load())
        photo = decode_image(index.image_path(index.find(query.name)))
        assert np.abs(view.astype(int) - cv2.resize(photo, (16, 16))).mean() > 5


def test_withheld_images_are_no_candidates(index, thumbnail_extractor):
    places = PinnedIndex(index.snapshot, None)
    query = replace(warped_queries(index, 1, 25.0)[0], load=lambda: decode_image(index.image_path(int(index.ids[0]))))
    (seen, _), (hidden, _) = (
        run_queries([one], places, thumbnail_extractor, rerank=12, radius_m=25.0).examples
        for one in (replace(query, withheld=frozenset(), shown_by=query.shown_by | query.withheld), query)
    )
    assert (seen.right, seen.features.similarity) == (True, pytest.approx(1.0))
    assert hidden.features.similarity < 0.9


def test_views_of_16_bit_images_have_the_grey_levels_of_the_index(tmp_path, thumbnail_extractor):
    """A thermal camera uses a small part of the range, which the index stretches over all levels."""
    rng = np.random.default_rng(0)
    photos = tmp_path / "photos"
    photos.mkdir()
    for number in range(4):
        thermal = rng.integers(7000, 8000, (40, 60)).astype(np.uint16)
        PIL.Image.fromarray(thermal).save(photos / f"{number}.png")
    index = PlaceIndex.create(tmp_path / "thermal", thumbnail_extractor.spec, photos, codec="float16")
    index.add(
        [ImageRecord(f"{number}.png", MetricPosition(100.0 * number, 0.0)) for number in range(4)], thumbnail_extractor
    )
    for query in warped_queries(index, 4, 25.0):
        assert query.load().std() > 10


def test_all_views_of_a_panorama_are_withheld_together(photo_folder, tmp_path, thumbnail_extractor):
    PIL.Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 128, 3)).astype(np.uint8)).save(
        photo_folder / "pano.png"
    )
    here = MetricPosition(0.0, 0.0)
    records = [*(ImageRecord(f"pano.png#{yaw:03d}", here) for yaw in range(0, 360, 60)), ImageRecord("00.png", here)]
    index = PlaceIndex.create(tmp_path / "views", thumbnail_extractor.spec, photo_folder, panorama_views=6)
    index.add(records, thumbnail_extractor)
    first, *_ = warped_queries(index, 7, 25.0)
    assert (first.withheld, first.shown_by) == (frozenset(range(6)), frozenset([6]))
