"""Localization near a known position."""

import pytest

from vpr_dhe.datasets.standard import read_split
from vpr_dhe.errors import BadInputError
from vpr_dhe.index.place_index import PlaceIndex
from vpr_dhe.localization.database import VerifiedIndex
from vpr_dhe.localization.localizer import Localizer
from vpr_dhe.localization.search_area import nearby_text, parse_near
from vpr_dhe.records import GeoPosition, ImageRecord, MetricPosition, Near, Position
from vpr_dhe.verification.build import build_estimator
from vpr_dhe.verification.verifier import Verifier

HERE = GeoPosition(49.0, 7.0)


def index_of(positions: dict[str, Position], photo_folder, tmp_path, extractor) -> PlaceIndex:
    index = PlaceIndex.create(tmp_path / "index", extractor.spec, photo_folder, codec="float16")
    index.add(
        [ImageRecord(record.path, positions.get(record.path)) for record in read_split(photo_folder).records], extractor
    )
    return index


@pytest.fixture
def index(photo_folder, tmp_path, thumbnail_extractor) -> PlaceIndex:
    """Images 0 to 3, 111 m apart, one in UTM, one in a local frame, and others without a position."""
    positions = {f"{number:02d}.png": GeoPosition(49 + number / 1000, 7.0) for number in range(4)}
    positions |= {"04.png": MetricPosition(353_712.9, 5_429_473.5, "UTM 32U"), "05.png": MetricPosition(0.0, 0.0)}
    return index_of(positions, photo_folder, tmp_path, thumbnail_extractor)


def test_only_images_near_enough_are_answers(index, photo_folder, thumbnail_extractor):
    localizer = Localizer(VerifiedIndex(index, Verifier(build_estimator("magsac"))), thumbnail_extractor)
    answer = localizer.localize(photo_folder / "03.png", near=Near(HERE, 250.0), top_k=12)
    assert {match.image for match in answer.matches} == {"00.png", "01.png", "02.png", "04.png"}
    assert (answer.nearby.images, answer.nearby.unplaced, answer.known) == (4, 7, None)
    best = localizer.localize(photo_folder / "03.png", near=Near(HERE, 350.0)).matches[0]
    assert (best.image, best.inliers) == ("03.png", 16)


def test_a_circle_without_images_is_an_unknown_place(index, photo_folder, thumbnail_extractor):
    localizer = Localizer(VerifiedIndex(index, None), thumbnail_extractor)
    answer = localizer.localize(photo_folder / "03.png", near=Near(GeoPosition(-49.0, 7.0), 100.0))
    assert (answer.matches, answer.known, answer.nearby.images) == ((), False, 0)
    text = "no image within 100 m of latitude -49, longitude 7; 7 images without such a position left out"
    assert nearby_text(answer.nearby) == text


@pytest.mark.parametrize(
    ("position", "text", "read"),
    [
        (HERE, "49, 7.5", GeoPosition(49.0, 7.5)),
        (MetricPosition(1.0, 2.0, "UTM 32U"), "-33.9,151", GeoPosition(-33.9, 151.0)),
        (MetricPosition(1.0, 2.0), "-300,1e3", MetricPosition(-300.0, 1000.0)),
        (MetricPosition(1.0, 2.0, "garden"), "1,2", MetricPosition(1.0, 2.0, "garden")),
    ],
)
def test_text_is_read_as_the_map_is(position, text, read, photo_folder, tmp_path, thumbnail_extractor):
    index = index_of({"00.png": position}, photo_folder, tmp_path, thumbnail_extractor)
    assert parse_near(text, 5.0, index.snapshot) == Near(read, 5.0)


def test_what_is_no_circle_is_said(index, photo_folder, tmp_path, thumbnail_extractor):
    snapshot = index.snapshot
    for text, within_m, reason in (
        ("49", 5.0, "expected LAT,LON"),
        ("a,b", 5.0, "expected LAT,LON"),
        ("354394,5454949", 5.0, "the latitude first"),
        ("nan,7", 5.0, "the latitude first"),
        ("49,7", 0.0, "above 0"),
        ("49,7", float("nan"), "above 0"),
    ):
        with pytest.raises(BadInputError, match=reason):
            parse_near(text, within_m, snapshot)
    (tmp_path / "none").mkdir()
    without = index_of({}, photo_folder, tmp_path / "none", thumbnail_extractor)
    with pytest.raises(BadInputError, match="has a position"):
        parse_near("49,7", 5.0, without.snapshot)
