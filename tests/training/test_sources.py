"""Training pairs: exact homographies, the same from the same seed, held-out pairs apart."""

import tomllib
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import PIL.Image
import pytest

from vpr_dhe.datasets import Protocol, read_places
from vpr_dhe.datasets.augmentation import in_other_light, random_homography
from vpr_dhe.errors import BadInputError, DatasetError, ImageError
from vpr_dhe.records import Preprocessing, Size
from vpr_dhe.runtime.choices import SYNTHETIC_TOWN
from vpr_dhe.synthetic_town.town import SyntheticTown, write_town
from vpr_dhe.training import sources
from vpr_dhe.training.descriptor.relit import RelitPairs
from vpr_dhe.training.sources import open_training_data
from vpr_dhe.training.sources.base import Draws, JoinedPairs, PairSource, SomePairs, TrainingPair
from vpr_dhe.training.sources.positives import PositivePairs
from vpr_dhe.training.sources.town import TownPairs
from vpr_dhe.training.sources.warps import WarpedImages

VIEW = Size(160, 120)


class Numbers(PairSource):
    """Pairs that say which they are, and what was drawn for them."""

    knows_homographies, description = False, "numbers"

    def __init__(self, count, first=0):
        self.count, self.first = count, first

    def __len__(self):
        return self.count

    def pair(self, index, random):
        pixels = np.full((16, 16, 3), self.first + index, np.uint8)
        return TrainingPair(pixels, random.integers(0, 256, (16, 16, 3), np.uint8))


def numbers(draws, start, stop):
    return [int(draws.pair(number).image_a[0, 0, 0]) for number in range(start, stop)]


def test_every_epoch_shows_every_pair_once_in_an_order_of_its_own():
    draws = Draws(Numbers(20), seed=3)
    epochs = [numbers(draws, 20 * epoch, 20 * epoch + 20) for epoch in range(3)]
    assert all(sorted(epoch) == list(range(20)) for epoch in epochs)
    assert epochs[0] != epochs[1] != epochs[2]
    assert numbers(Draws(Numbers(20), seed=4), 0, 20) != epochs[0]


def test_a_pair_depends_on_seed_and_number_alone():
    later = Draws(Numbers(20), seed=3).pair(57)
    draws = Draws(Numbers(20), seed=3)
    for number in range(57):
        draws.pair(number)
    again = draws.pair(57)
    assert (later.image_b == again.image_b).all()
    assert (later.image_b != draws.pair(58).image_b).any()


def test_joined_and_chosen_pairs_keep_their_places():
    joined = JoinedPairs([Numbers(2), Numbers(0), SomePairs(Numbers(9, first=100), [3, 5, 8])])
    random = np.random.default_rng(0)
    assert [int(joined.pair(index, random).image_a[0, 0, 0]) for index in range(5)] == [0, 1, 103, 105, 108]
    with pytest.raises(DatasetError, match="no image pairs"):
        JoinedPairs([Numbers(0)])


def textured(folder, count=1):
    """Photos of a smooth texture without any symmetry."""
    rng, paths = np.random.default_rng(5), []
    for number in range(count):
        coarse = PIL.Image.fromarray(rng.integers(0, 256, (18, 24, 3), np.uint8))
        paths.append(folder / f"{number:02d}.png")
        coarse.resize((640, 480), PIL.Image.Resampling.BICUBIC).save(paths[-1])
    return paths


def aligned_difference(pair, homography):
    """Mean difference of B and A warped onto it, where A is seen, light left out."""
    size = pair.image_b.shape[1::-1]
    warped = cv2.warpPerspective(pair.image_a, homography, size).astype(float)
    inside = cv2.warpPerspective(np.ones(pair.image_a.shape[:2], np.uint8), homography, size) > 0
    inside = cv2.erode(inside.astype(np.uint8), np.ones((5, 5))) > 0
    a, b = warped[inside], pair.image_b.astype(float)[inside]
    return 1 - np.corrcoef(a.ravel(), b.ravel())[0, 1]


def test_warps_are_related_by_their_homography_and_no_other(tmp_path, monkeypatch):
    monkeypatch.setattr("vpr_dhe.datasets.augmentation.in_other_light", lambda pixels, random: pixels)
    source = WarpedImages(textured(tmp_path), VIEW, "texture")
    for epoch in range(4):
        pair = Draws(source, seed=1).pair(epoch)
        assert pair.image_a.shape == pair.image_b.shape == (120, 160, 3)
        assert pair.homography is not None
        assert pair.homography[2, 2] == pytest.approx(1)
        assert aligned_difference(pair, pair.homography) < 0.01
        shifted = np.array([[1.0, 0, 4], [0, 1, -4], [0, 0, 1]]) @ pair.homography
        assert aligned_difference(pair, shifted) > 2 * aligned_difference(pair, pair.homography)


def test_corners_move_by_up_to_a_quarter_of_the_side():
    size, rng = Size(200, 100), np.random.default_rng(0)
    square = np.array([[0, 0], [199, 0], [199, 99], [0, 99]], float)
    moved = np.stack([cv2.perspectiveTransform(square[None], random_homography(size, rng))[0] for _ in range(300)])
    furthest = np.abs(moved - square).max(axis=(0, 1))
    assert (furthest <= [50 + 1e-9, 25 + 1e-9]).all()
    assert (furthest > [48, 24]).all()


def test_light_changes_colours_and_keeps_shape_and_range():
    rng = np.random.default_rng(2)
    pixels = rng.uniform(0, 1, (40, 60, 3)).astype(np.float32)
    lit = [in_other_light(pixels, np.random.default_rng(seed)) for seed in range(12)]
    assert all(view.shape == pixels.shape and view.min() >= 0 and view.max() <= 1 for view in lit)
    assert np.ptp([view.mean() for view in lit]) > 0.05
    casts = np.array([view.mean(axis=(0, 1)) / view.mean() for view in lit])
    assert np.ptp(casts, axis=0).min() > 0.03


@pytest.fixture(scope="module")
def facades(tmp_path_factory):
    """Photos of one texture each, of three colours."""
    folder = tmp_path_factory.mktemp("facades")
    for number, colour in enumerate(((230, 40, 40), (40, 230, 40), (40, 40, 230))):
        noise = np.random.default_rng(number).integers(0, 25, (60, 90, 3), np.uint8)
        PIL.Image.fromarray(noise + np.array(colour, np.uint8)).resize((360, 240)).save(folder / f"{number}.png")
    return folder


def test_town_pairs_are_aligned_on_their_front():
    source = TownPairs([4], 3)
    pairs = [Draws(source, seed=0).pair(number) for number in range(2)]
    for pair in pairs:
        assert pair.homography is not None
        centre = cv2.perspectiveTransform(np.array([[[160.0, 120.0]]]), pair.homography)[0, 0]
        assert np.abs(centre - (160, 120)).max() < 400
        assert pair.matches is not None
        assert len(pair.matches) > 300
        here, there = pair.matches[:, :2], pair.matches[:, 2:]
        np.testing.assert_allclose(cv2.perspectiveTransform(here[:, None], pair.homography)[:, 0], there)
    again = Draws(TownPairs([4], 3), seed=0).pair(1)
    assert (again.image_b == pairs[1].image_b).all()
    assert (again.homography == pairs[1].homography).all()


def test_fronts_are_cut_from_photos(facades):
    photos = sorted(facades.iterdir())
    pair = Draws(TownPairs([4], 3, photos), seed=0).pair(0)
    assert pair.matches is not None
    # The main channel of a front is that of its photo, in any light, in both views.
    channels = [
        image[points[:, 1].round().astype(int), points[:, 0].round().astype(int)].argmax(axis=1)
        for image, points in ((pair.image_a, pair.matches[:, :2]), (pair.image_b, pair.matches[:, 2:]))
    ]
    (of_a, of_b) = (np.bincount(found, minlength=3) / len(found) for found in channels)
    assert of_a.max() > 0.8
    assert of_a.argmax() == of_b.argmax()
    painted = Draws(TownPairs([4], 3), seed=0).pair(0)
    assert (painted.homography == pair.homography).all()
    assert (painted.image_a != pair.image_a).any()


def test_towns_to_validate_with_have_fronts_of_their_own(facades, tmp_path):
    data = open_training_data([SYNTHETIC_TOWN], VIEW, textures=facades)
    assert f"fronts from 2 photos of {facades.name}" in data.warps.description
    assert f"fronts from 1 photos of {facades.name}" in data.validation.description
    with pytest.raises(BadInputError, match="photos of facades are for synthetic-town"):
        open_training_data([str(facades)], VIEW, textures=facades)
    textured(tmp_path, 1)
    with pytest.raises(DatasetError, match="expected at least 2 photos of facades, found 1"):
        open_training_data([SYNTHETIC_TOWN], VIEW, textures=tmp_path)


@pytest.fixture(scope="module")
def town(tmp_path_factory):
    folder = tmp_path_factory.mktemp("town")
    town = SyntheticTown(seed=1, streets=2)
    database = town.database_cameras()[:24]
    write_town(folder, town, database, town.query_cameras(12, 1, database))
    return folder


def test_positives_of_a_place_data_set_are_close(town):
    data = open_training_data([str(town)], VIEW, Protocol(split="test"))
    assert isinstance(data.positives, JoinedPairs)
    assert (len(data.positives), len(data.validation), len(data.warps)) == (10, 2, 24)
    assert not data.positives.knows_homographies
    assert data.warps.knows_homographies
    assert "within 10 m" in data.positives.description
    pair = Draws(data.positives, 0).pair(0)
    assert pair.homography is None
    assert pair.image_a.shape == (240, 320, 3)
    with pytest.raises(DatasetError, match="choose one with --split"):
        open_training_data([str(town)], VIEW)


def test_queries_near_each_other_have_a_place_in_common(town):
    dataset = read_places(town)
    source, random = PositivePairs(dataset), np.random.default_rng(0)
    at = [dataset.queries.records[query].position for query, rows in enumerate(dataset.positives) if rows.size]
    pairs = [source.pair(index, random) for index in range(len(source))]
    for one, here in zip(pairs, at, strict=True):
        for other, there in zip(pairs, at, strict=True):
            distance_m = np.hypot(here.x_m - there.x_m, here.y_m - there.y_m)
            if distance_m <= 25:
                assert one.places & other.places
            if distance_m > 50:
                assert not one.places & other.places


def test_generated_pairs_say_what_they_show(tmp_path):
    warps, random = WarpedImages(textured(tmp_path, 2), VIEW, "textures"), np.random.default_rng(0)
    assert warps.pair(0, random).places == warps.pair(0, random).places != warps.pair(1, random).places
    (front,) = TownPairs([4], 3).pair(0, random).places
    assert front.startswith("town 4, front ")


def test_relit_pairs_are_of_the_networks_size_and_in_a_light_of_their_own(town):
    source = PositivePairs(read_places(town))
    relit = RelitPairs(source, Preprocessing(48, 32, "bilinear", True, (0.5,) * 3, (0.25,) * 3))
    assert len(relit) == len(source)
    first, again = (Draws(relit, 0).pair(1) for _ in range(2))
    assert first.image_a.shape == first.image_b.shape == (32, 48, 3)
    assert (first.image_a == again.image_a).all()
    assert first.places == Draws(source, 0).pair(1).places
    assert first.homography is None
    lit = [relit.pair(0, np.random.default_rng(seed)).image_a for seed in range(4)]
    assert len({view.tobytes() for view in lit}) == 4


def test_photos_are_warped_and_some_held_out(tmp_path):
    textured(tmp_path, 12)
    data = open_training_data([str(tmp_path)], VIEW)
    assert data.positives is data.warps
    assert (len(data.warps), len(data.validation)) == (10, 2)
    (tmp_path / "03.png").write_bytes(b"no image")
    with pytest.raises(ImageError, match=r"03\.png"):
        [Draws(data.warps, 0).pair(number) for number in range(10)]


def test_a_place_data_set_among_others_gives_the_positives(town, tmp_path):
    textured(tmp_path, 12)
    data = open_training_data([str(town), str(tmp_path), "synthetic-town"], VIEW, Protocol(split="test"))
    assert (len(data.positives), len(data.validation)) == (10, 2)
    assert len(data.warps) == 24 + 10 + 2000


def test_unpublished_ground_truth_and_missing_folders_are_refused(town, tmp_path):
    with pytest.raises(DatasetError, match="does not exist"):
        open_training_data([str(tmp_path / "nothing")], VIEW)
    textured(tmp_path, 1)
    with pytest.raises(DatasetError, match="at least two"):
        open_training_data([str(tmp_path)], VIEW)
    with pytest.raises(DatasetError, match="not public"):
        PositivePairs(replace(read_places(town), positives=None))


def test_no_training_renders_a_held_out_town():
    rules = tomllib.loads((Path(__file__).parents[2] / "benchmarks/splits.toml").read_text(encoding="utf-8"))
    assert not {*sources._TOWN_SEEDS, *sources._VALIDATION_TOWN_SEEDS} & {*rules["synthetic_town"]["held_out"]}
