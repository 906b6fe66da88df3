"""The story end to end with an extractor small enough to follow."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from calibrations import write_calibration
from PIL import Image as PillowImage

from vpr_dhe.datasets.standard import read_split
from vpr_dhe.errors import BadInputError, ImageError, IndexFormatError
from vpr_dhe.features.extractor import load_extractor
from vpr_dhe.images.decoding import decode_image
from vpr_dhe.index.adaptation.fitting import Fit
from vpr_dhe.index.adaptation.map_images import MapImages
from vpr_dhe.index.adaptation.report import AdaptationReport
from vpr_dhe.index.adaptation.transform import VectorTransform
from vpr_dhe.index.adaptation_update import MapVectors, records_of
from vpr_dhe.index.place_index import PlaceIndex
from vpr_dhe.localization import database
from vpr_dhe.localization.calibration.probability import Calibration, Conditions
from vpr_dhe.localization.database import PinnedIndex, VerifiedIndex
from vpr_dhe.localization.localizer import Localizer
from vpr_dhe.records import Cameras, Intrinsics, Verification
from vpr_dhe.sequences.frame_memory import FrameMemory
from vpr_dhe.verification.build import build_estimator
from vpr_dhe.verification.verifier import Verifier


@pytest.fixture
def index(photo_folder, tmp_path, thumbnail_extractor) -> PlaceIndex:
    index = PlaceIndex.create(tmp_path / "index", thumbnail_extractor.spec, photo_folder)
    index.add(read_split(photo_folder).records, thumbnail_extractor)
    return index


class Scripted(Verifier):
    """Scores candidates by a script, in the order in which they were retrieved."""

    def __init__(self, scores: list[float]) -> None:
        super().__init__(build_estimator("magsac"))
        self._scores = scores

    def verify(self, query, candidates) -> list[Verification]:
        assert len(candidates) <= len(self._scores)
        none = np.empty((0, 2))
        return [Verification(None, score, none, none) for score in self._scores[: len(candidates)]]


def test_every_photo_is_found_again(index, photo_folder, thumbnail_extractor):
    localizer = Localizer(VerifiedIndex(index, Verifier(build_estimator("magsac"))), thumbnail_extractor)
    for record in read_split(photo_folder).records:
        best = localizer.localize(photo_folder / record.path, top_k=3).matches[0]
        assert (best.image, best.rank, best.inliers) == (record.path, 1, 16)
        assert best.homography is not None
        np.testing.assert_allclose(best.homography, np.eye(3), atol=0.05)


def test_paths_arrays_pictures_and_tensors_give_the_same_answer(index, photo_folder, thumbnail_extractor):
    localizer = Localizer(VerifiedIndex(index, Verifier(build_estimator("magsac"))), thumbnail_extractor)
    path = photo_folder / "03.png"
    array = decode_image(path)
    forms = (path, str(path), array, PillowImage.fromarray(array), torch.from_numpy(array).permute(2, 0, 1) / 255)
    answers = [
        [(match.image, match.similarity, match.score) for match in localizer.localize(form).matches] for form in forms
    ]
    assert answers == answers[:1] * 5


def test_ties_keep_the_order_of_retrieval(index, photo_folder, thumbnail_extractor):
    plain = Localizer(VerifiedIndex(index, None), thumbnail_extractor).localize(photo_folder / "02.png", top_k=12)
    tied = Localizer(VerifiedIndex(index, Scripted([4.0] * 12)), thumbnail_extractor).localize(
        photo_folder / "02.png", top_k=12
    )
    assert [match.image for match in tied.matches] == [match.image for match in plain.matches]


def test_scores_order_the_reranked_and_leave_the_rest_behind(index, photo_folder, thumbnail_extractor):
    plain = [
        m.image
        for m in Localizer(VerifiedIndex(index, None), thumbnail_extractor)
        .localize(photo_folder / "02.png", top_k=6)
        .matches
    ]
    localizer = Localizer(VerifiedIndex(index, Scripted([0.0, 5.0, 0.0, 9.0])), thumbnail_extractor, rerank=4)
    matches = localizer.localize(photo_folder / "02.png", top_k=6).matches
    assert [match.image for match in matches] == [plain[i] for i in (3, 1, 0, 2, 4, 5)]
    assert [match.score for match in matches] == [9, 5, 0, 0, 0, 0]
    assert [match.rank for match in matches] == [1, 2, 3, 4, 5, 6]


def test_without_a_verifier_the_score_is_the_similarity(index, photo_folder, thumbnail_extractor):
    localization = Localizer(VerifiedIndex(index, None), thumbnail_extractor).localize(photo_folder / "02.png")
    assert [match.score for match in localization.matches] == [match.similarity for match in localization.matches]
    assert localization.timing.rerank_ms >= 0


def calibrated(folder, extractor, verifier: str = "magsac") -> Calibration:
    """One by which a margin of two, and nothing else, makes a match as likely right as wrong."""
    conditions = Conditions(extractor.spec.fingerprint, verifier, 4)
    return Calibration(conditions, 25.0, 0.5, 10, 5, 12, -np.arcsinh(9.0) + np.arcsinh(3.0), {"margin": 1.0})


def test_the_best_match_has_the_probability_of_its_evidence(index, photo_folder, thumbnail_extractor):
    calibration = calibrated(index.folder, thumbnail_extractor)
    places = VerifiedIndex(index, Scripted([3.0, 0.0, 9.0, 1.0]))
    localizer = Localizer(places, thumbnail_extractor, rerank=4, calibration=calibration)
    for top_k in (1, 3, 12):
        answer = localizer.localize(photo_folder / "02.png", top_k=top_k)
        assert [match.probability for match in answer.matches] == [pytest.approx(0.5), *[None] * (top_k - 1)]
        assert answer.known is None
    unsure = localizer.localize(photo_folder / "02.png", min_probability=0.6)
    assert (unsure.matches, unsure.known, unsure.rejected.score) == ((), False, 9.0)
    assert unsure.rejected.probability == pytest.approx(0.5)
    sure = localizer.localize(photo_folder / "02.png", min_probability=0.4, top_k=3)
    assert (len(sure.matches), sure.rejected, sure.known) == (3, None, True)
    with pytest.raises(BadInputError, match="expected 0 to 1"):
        localizer.localize(photo_folder / "02.png", min_probability=float("nan"))


def test_a_calibration_for_another_verifier_is_refused(index, thumbnail_extractor):
    for verifier, fitted_for in ((None, "magsac"), (Scripted([]), "none")):
        with pytest.raises(BadInputError, match="calibration was fitted with"):
            Localizer(
                VerifiedIndex(index, verifier),
                thumbnail_extractor,
                rerank=4,
                calibration=calibrated(index.folder, thumbnail_extractor, fitted_for),
            )


def test_without_a_verifier_the_rivals_are_looked_for_as_far(index, photo_folder, thumbnail_extractor):
    calibration = calibrated(index.folder, thumbnail_extractor, "none")
    localizer = Localizer(VerifiedIndex(index, None), thumbnail_extractor, rerank=4, calibration=calibration)
    first, many = (localizer.localize(photo_folder / "02.png", top_k=top_k).matches for top_k in (1, 12))
    assert first[0].probability == many[0].probability is not None


def test_where_a_shard_is_missing_nobody_knows_how_likely_a_match_is(index, photo_folder, thumbnail_extractor):
    class OneShardMissing(PinnedIndex):
        missing_shards = frozenset(["shard 2"])

        def records(self, ids):
            return super().records(ids[:3])

    class Sharded(VerifiedIndex):
        def pinned(self):
            return OneShardMissing(self.index.snapshot, None)

    calibration = calibrated(index.folder, thumbnail_extractor, "none")
    localizer = Localizer(Sharded(index, None), thumbnail_extractor, rerank=4, calibration=calibration)
    assert localizer.localize(photo_folder / "02.png").matches[0].probability is None
    unsure = localizer.localize(photo_folder / "02.png", min_probability=0.0)
    assert (unsure.known, unsure.rejected.probability) == (False, None)


def test_a_calibration_of_other_vectors_is_not_used(index, photo_folder, thumbnail_extractor):
    calibration = calibrated(index.folder, thumbnail_extractor)
    verifier, photo = Scripted([3.0, 0.0, 9.0, 1.0]), photo_folder / "02.png"
    center(index)
    localizer = Localizer(VerifiedIndex(index, verifier), thumbnail_extractor, rerank=4, calibration=calibration)
    assert localizer.adaptation is not None
    best = localizer.localize(photo).matches[0]
    assert best.probability is None
    assert best.similarity != best.similarity_extracted
    with pytest.raises(BadInputError, match="adapted to its map after it was calibrated"):
        localizer.localize(photo, min_probability=0.1)
    off = VerifiedIndex(index, verifier, adapt="off")
    localizer = Localizer(off, thumbnail_extractor, rerank=4, calibration=calibration)
    best = localizer.localize(photo).matches[0]
    assert best.probability == pytest.approx(0.5)
    assert best.similarity == best.similarity_extracted


def test_a_calibration_of_maps_of_another_codec_is_not_used(index, photo_folder, thumbnail_extractor):
    calibration = calibrated(index.folder, thumbnail_extractor)
    calibration = replace(calibration, conditions=replace(calibration.conditions, codec=index.manifest.codec.name))
    verifier, photo = Scripted([3.0, 0.0, 9.0, 1.0]), photo_folder / "02.png"
    localizer = Localizer(VerifiedIndex(index, verifier), thumbnail_extractor, rerank=4, calibration=calibration)
    assert localizer.localize(photo).matches[0].probability is not None
    PlaceIndex.open(index.folder).compact(codec="binary")
    index.refresh()
    assert localizer.localize(photo).matches[0].probability is None
    with pytest.raises(BadInputError, match="compacted with another codec after it was calibrated"):
        localizer.localize(photo, min_probability=0.1)


def center(index: PlaceIndex) -> None:
    """Adapt by centring, whether that helps or not."""
    with index.writing() as writer:
        vectors = MapVectors(writer.snapshot)
        images = MapImages.of(records_of(writer.snapshot, index.ids))
        mean = index.descriptors(index.ids).numpy().mean(axis=0)
        report = AdaptationReport(len(images), "positions", 0)
        writer.adapt(Fit(VectorTransform.centring(mean), 0.0, report), vectors, images, lambda _kind, _count: None)


@pytest.fixture
def bundled_index(photo_folder, tmp_path) -> PlaceIndex:
    """Three photos, extracted by a model of the package."""
    extractor = load_extractor("sift-vlad")
    index = PlaceIndex.create(tmp_path / "bundled", extractor.spec, photo_folder, codec="float16")
    index.add(read_split(photo_folder).records[:3], extractor)
    return index


def test_headings_are_estimated_with_the_cameras_given(
    index, bundled_index, photo_folder, thumbnail_extractor, monkeypatch
):
    cameras, seen = Cameras(Intrinsics(50.0, 50.0, 31.5, 23.5), Intrinsics(60.0, 60.0, 31.5, 23.5)), []
    monkeypatch.setattr("vpr_dhe.localization.localizer.fuse_positions", lambda _, *, cameras: seen.append(cameras))
    for localizer in (
        Localizer(VerifiedIndex(index, None), thumbnail_extractor, cameras=cameras),
        Localizer.open(bundled_index.folder, verifier="none", cameras=cameras),
        Localizer.open(bundled_index.folder, verifier="none"),
    ):
        localizer.localize(photo_folder / "02.png")
    assert seen == [cameras, cameras, None]


@pytest.mark.parametrize(("adapt", "as_extracted"), [("auto", False), ("off", True)])
def test_an_adapted_index_is_searched_as_extracted_on_request(bundled_index, photo_folder, adapt, as_extracted):
    center(bundled_index)
    localizer = Localizer.open(bundled_index.folder, verifier="none", adapt=adapt)
    last = localizer.localize(photo_folder / "02.png").matches[-1]
    assert (last.similarity == last.similarity_extracted) == as_extracted


def test_a_least_probability_needs_a_calibration(index, photo_folder, thumbnail_extractor):
    write_calibration(index.folder, calibrated(index.folder, thumbnail_extractor))
    localizer = Localizer(VerifiedIndex(index, None), thumbnail_extractor)
    assert localizer.localize(photo_folder / "02.png").matches[0].probability is None
    with pytest.raises(BadInputError, match="rerank 100, ranked by inliers; run `vpr-dhe calibrate"):
        localizer.localize(photo_folder / "02.png", min_probability=0.5)
    with pytest.raises(BadInputError, match="rerank 4, not for"):
        Localizer(localizer.database, thumbnail_extractor, calibration=calibrated(index.folder, thumbnail_extractor))


def test_only_a_database_on_this_machine_has_an_index(index, thumbnail_extractor):
    assert Localizer(VerifiedIndex(index, None), thumbnail_extractor).index is index
    with FrameMemory(index, None) as memory, pytest.raises(BadInputError, match="answers from a FrameMemory"):
        _ = Localizer(memory, thumbnail_extractor).index


def test_bad_use_is_explained(index, photo_folder, tmp_path, thumbnail_extractor, other_extractor):
    with pytest.raises(IndexFormatError, match="was made with model"):
        Localizer(VerifiedIndex(index, None), other_extractor)
    with pytest.raises(BadInputError, match="rerank"):
        Localizer(VerifiedIndex(index, None), thumbnail_extractor, rerank=0)
    (tmp_path / "words.jpg").write_text("not pixels")
    with pytest.raises(ImageError):
        Localizer(VerifiedIndex(index, None), thumbnail_extractor).localize(tmp_path / "words.jpg")
    with pytest.raises(ImageError):
        Localizer(VerifiedIndex(index, None), thumbnail_extractor).localize(str(tmp_path / "none.jpg"))
    empty = PlaceIndex.create(tmp_path / "empty", thumbnail_extractor.spec, photo_folder)
    PillowImage.new("RGB", (40, 40)).save(tmp_path / "black.png")
    with pytest.raises(IndexFormatError, match="holds no images"):
        Localizer(VerifiedIndex(empty, None), thumbnail_extractor).localize(photo_folder / "02.png")


@pytest.mark.parametrize("count", [1, 4, 12])
@pytest.mark.parametrize("excluded", [(), (5,), (4, 5, 6), tuple(range(11)), tuple(range(12))])
def test_excluded_images_are_left_out_however_many_are_nearest(
    count, excluded, index, photo_folder, thumbnail_extractor, monkeypatch
):
    monkeypatch.setattr(database, "_FEW_EXCLUDED", 1)
    query = thumbnail_extractor.extract([decode_image(photo_folder / "05.png")])[0].global_descriptor[None]
    everything = PinnedIndex(index.snapshot, None).search(query, len(index)).ids[0].tolist()
    found = PinnedIndex(index.snapshot, None, excluded=frozenset(excluded)).search(query, count)
    assert found.ids[0].tolist() == [id for id in everything if id not in excluded][:count]
