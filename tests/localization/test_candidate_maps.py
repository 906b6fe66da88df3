"""Local maps of candidates that several verifiers share."""

import weakref

import pytest
import torch

from vpr_dhe import PlaceIndex
from vpr_dhe.datasets.standard import read_split
from vpr_dhe.images.decoding import decode_image
from vpr_dhe.index.ingest import ExtractedImage
from vpr_dhe.index.segments import IndexedImage
from vpr_dhe.index.stored_maps import StoredMaps
from vpr_dhe.localization.candidate_maps import CandidateMaps, SharedCandidateMaps, verify_images
from vpr_dhe.localization.database import PinnedIndex
from vpr_dhe.records import NOTHING_TO_MATCH, Features
from vpr_dhe.verification.build import build_estimator
from vpr_dhe.verification.estimators.base import Homographies, HomographyEstimator
from vpr_dhe.verification.verifier import Verifier


@pytest.fixture
def index(photo_folder, thumbnail_extractor, tmp_path):
    index = PlaceIndex.create(tmp_path / "index", thumbnail_extractor.spec, photo_folder, codec="float16")
    index.add(read_split(photo_folder).records, thumbnail_extractor)
    return index


@pytest.fixture
def query(photo_folder, thumbnail_extractor):
    return thumbnail_extractor.extract([decode_image(photo_folder / "02.png")])[0]


@pytest.fixture
def matchings(monkeypatch):
    """Calls of `StoredMaps.match` so far."""
    calls, match = [], StoredMaps.match

    def counted(self, query, *cells):
        calls.append(len(self))
        return match(self, query, *cells)

    monkeypatch.setattr(StoredMaps, "match", counted)
    return calls


def no_pixels():
    raise AssertionError("verifiers that work on matches need no pixels")


def summary(found):
    return {
        id: (one.score, None if one.homography is None else one.homography.tolist(), one.query_points.tolist())
        for id, one in found.items()
    }


def test_verifiers_find_together_what_each_finds_alone(index, query):
    ids, maps = index.ids.tolist(), CandidateMaps(index.snapshot, query, index.ids.tolist())
    for verifier in (Verifier(build_estimator(name)) for name in ("magsac", "ransac", "poselib")):
        alone = verify_images(index.snapshot, verifier, no_pixels, query, ids)
        assert summary(maps.verify(verifier, no_pixels)) == summary(alone)


def test_candidates_are_matched_once_and_later_verifiers_are_told_what_that_saved(index, query, matchings):
    maps = CandidateMaps(index.snapshot, query, index.ids.tolist())
    maps.verify(Verifier(build_estimator("magsac")), no_pixels)
    assert maps.saved_ms == 0
    maps.verify(Verifier(build_estimator("ransac")), no_pixels)
    assert matchings == [len(index)]
    assert maps.saved_ms > 0


@pytest.mark.parametrize(
    "order", [("votes", "matches"), ("matches", "votes"), ("votes", "votes", "matches", "matches")]
)
def test_every_user_pays_for_reading_the_maps(index, query, monkeypatch, order):
    """Reading takes a second, and matching nothing: each user but the first saves a second."""
    clock, read = [0.0], CandidateMaps._read_maps

    class Clock:
        def __init__(self) -> None:
            self.began_ms = clock[0]

        def lap_ms(self) -> float:
            return clock[0] - self.began_ms

    def read_slowly(maps: CandidateMaps):
        clock[0] += 1000.0
        return read(maps)

    monkeypatch.setattr("vpr_dhe.localization.candidate_maps.Stopwatch", Clock)
    monkeypatch.setattr(CandidateMaps, "_read_maps", read_slowly)
    maps, verifier = CandidateMaps(index.snapshot, query, index.ids.tolist()), Verifier(build_estimator("magsac"))
    saved_ms = []
    for work in order:
        _ = maps.shift_votes() if work == "votes" else maps.verify(verifier, no_pixels)
        saved_ms.append(maps.saved_ms)
    assert saved_ms == [1000.0 * number for number in range(len(order))]


def test_maps_are_shared_for_the_same_query_and_candidates_alone(index, query, photo_folder, thumbnail_extractor):
    shared, ids = SharedCandidateMaps(), index.ids.tolist()
    first = shared(index.snapshot, query, ids)
    assert shared(index.snapshot, query, ids) is first
    fewer = shared(index.snapshot, query, ids[:3])
    assert fewer is not first
    other = thumbnail_extractor.extract([decode_image(photo_folder / "03.png")])[0]
    assert shared(index.snapshot, other, ids[:3]) is not fewer


def test_the_coarse_pass_counts_once_for_all_verifiers(index, query, matchings):
    shared, ids = SharedCandidateMaps(), index.ids.tolist()
    databases = [
        PinnedIndex(index.snapshot, Verifier(build_estimator(name)), maps_of=shared) for name in ("magsac", "ransac")
    ]
    first, second = (database.shift_votes(query, ids) for database in databases)
    assert first == second
    assert matchings == [len(ids)]
    assert shared.take_saved_ms() > 0
    assert shared.take_saved_ms() == 0
    assert max(first, key=first.__getitem__) == index.find("02.png")


def test_images_that_are_not_sealed_yet_get_the_votes_of_sealed_ones(index, query):
    snapshot, ids = index.snapshot, index.ids.tolist()
    descriptors, maps = snapshot.descriptors(ids), snapshot.local_maps(ids)
    grid = snapshot.manifest.spec.grid
    pending = {
        id: ExtractedImage(
            row,
            IndexedImage(snapshot.image(id), snapshot.frame(id).image_size),
            snapshot.stamp(id),
            Features(descriptors[row], maps[row], grid, snapshot.frame(id)),
        )
        for row, id in enumerate(ids)
        if row % 2
    }
    sealed = PinnedIndex(snapshot, None).shift_votes(query, ids)
    found = PinnedIndex(snapshot, None, pending=pending).shift_votes(query, ids)
    assert found == pytest.approx(sealed, rel=1e-4)


@pytest.mark.usefixtures("no_garbage_collector")
@pytest.mark.parametrize("verifier", ["magsac", "poselib"])
def test_a_query_leaves_its_maps_and_matches_to_no_garbage_collector(index, query, verifier):
    verifier = Verifier(build_estimator(verifier))

    def verify_once():
        maps = CandidateMaps(index.snapshot, query, index.ids.tolist())
        maps.shift_votes()
        return maps.verify(verifier, no_pixels), weakref.ref(maps)

    found, maps = verify_once()
    assert len(found) == len(index)
    assert maps() is None


def test_a_candidate_whose_file_is_gone_matches_nothing(index, query, photo_folder, caplog):
    class OnPixels(HomographyEstimator):
        """Estimator that reads the pixels of all candidates."""

        name, uses_images = "on-pixels", True

        def estimate(self, query, candidates):
            for view in candidates:
                _ = view.image
            found = torch.ones(len(candidates), dtype=torch.bool)
            return Homographies.of(torch.eye(3, dtype=torch.float64).repeat(len(candidates), 1, 1), found)

    (photo_folder / "03.png").unlink()
    (photo_folder / "05.png").write_text("no pixels any more")
    found = verify_images(index.snapshot, Verifier(OnPixels()), no_pixels, query, [2, 3, 4, 5])
    assert list(found) == [2, 3, 4, 5]
    assert [found[id] is NOTHING_TO_MATCH for id in found] == [False, True, False, True]
    assert ["03.png" in caplog.text, "05.png" in caplog.text] == [True, True]
