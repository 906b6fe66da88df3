"""What is claimed of real images, measured again."""

import math

import numpy as np
import pytest
import torch

from vpr_dhe.datasets import Protocol, read_places
from vpr_dhe.datasets.pairs import read_pairs
from vpr_dhe.evaluation.feature_cache import FeatureCache
from vpr_dhe.evaluation.place_evaluation import evaluate_dataset
from vpr_dhe.features.extractor import load_extractor
from vpr_dhe.geometry.coordinates import corners
from vpr_dhe.geometry.homography import mean_corner_error
from vpr_dhe.images.decoding import decode_image
from vpr_dhe.images.loading import image_size
from vpr_dhe.verification.alignment import align_keypoints
from vpr_dhe.verification.build import build_estimator, build_verifiers
from vpr_dhe.verification.estimators.resources import Resources
from vpr_dhe.verification.verifier import Verifier


def recall_from_the_text(result, index, extractor, is_right) -> dict[int, float]:
    """Recall@N of retrieval from the definition: all cosines, sorted, and the names of the images."""
    dataset = result.dataset
    known = index.descriptors(index.ids).double().numpy()
    names = [index.image(int(id)).path for id in index.ids]
    hits = dict.fromkeys(result.settings.ranks, 0)
    for record in dataset.queries.records:
        query = extractor.extract([decode_image(dataset.queries.folder / record.path)])[0].global_descriptor
        best = np.argsort(-(known @ query.double().numpy()), kind="stable")
        for rank in hits:
            hits[rank] += any(is_right(record.path, names[row]) for row in best[:rank])
    return {rank: 100.0 * count / len(dataset.queries.records) for rank, count in hits.items()}


def recall_of_predictions(result, method, is_right) -> dict[int, float]:
    """Recall@N of any method from the names of what it predicted."""
    names = [record.path for record in result.dataset.database.records]
    asked = list(zip(result.dataset.queries.records, method.predictions, strict=True))
    return {
        rank: 100.0 * sum(any(is_right(q.path, names[p.row]) for p in best[:rank]) for q, best in asked) / len(asked)
        for rank in result.settings.ranks
    }


def within_25_m(query: str, image: str) -> bool:
    here, there = (tuple(float(part) for part in name.split("@")[1:3]) for name in (query, image))
    return math.dist(here, there) <= 25


def within_2_frames(query: str, image: str) -> bool:
    return abs(int(query.split(".", maxsplit=1)[0]) - int(image.split(".", maxsplit=1)[0])) <= 2


@pytest.mark.slow
@pytest.mark.data
def test_street_views_are_recognised_better_than_by_the_prototype(real_images, tmp_path):
    dataset = read_places(real_images / "streetview_west")
    extractor = load_extractor("sift-vlad")
    index = FeatureCache(tmp_path).index(dataset.database, extractor)
    result = evaluate_dataset(dataset, index, extractor, build_verifiers(["magsac"], Resources(extractor)))
    assert len(dataset.queries.records) == 564
    assert result.retrieval.scores.recall[1] >= 65.8
    assert result.verifiers[0].scores.recall[1] >= 73.8
    assert result.retrieval.scores.recall == recall_from_the_text(result, index, extractor, within_25_m)
    for method in result.methods:
        assert method.scores.recall == recall_of_predictions(result, method, within_25_m)


@pytest.mark.slow
@pytest.mark.data
def test_the_pretrained_network_retrieves_street_views_better_than_sift_vlad(real_images, tmp_path):
    dataset = read_places(real_images / "streetview_west")
    extractor = load_extractor("lite-vlad")
    index = FeatureCache(tmp_path).index(dataset.database, extractor)
    result = evaluate_dataset(dataset, index, extractor, {})
    assert result.retrieval.scores.recall[1] >= 77.0


@pytest.mark.slow
@pytest.mark.data
def test_thumbnails_are_counted_by_frame(real_images, tmp_path):
    dataset = read_places(real_images / "thumbs_gardens_point", protocol=Protocol(frame_tolerance=2))
    extractor = load_extractor("sift-vlad")
    index = FeatureCache(tmp_path).index(dataset.database, extractor)
    result = evaluate_dataset(dataset, index, extractor, {})
    assert result.retrieval.scores.recall == recall_from_the_text(result, index, extractor, within_2_frames)


@pytest.mark.slow
@pytest.mark.data
def test_easy_pairs_are_aligned_to_a_few_pixels(real_images):
    pairs = {pair.name: pair for pair in read_pairs(real_images / "homography_pairs").pairs}
    for pair in (pairs["adam"], pairs["city"], pairs["Boston"]):
        image_a, image_b = pair.image_a(), pair.image_b()
        found = align_keypoints(image_a, image_b, Verifier(build_estimator("magsac"))).homography
        assert found is not None
        truth = torch.from_numpy(pair.homography)
        assert float(mean_corner_error(torch.from_numpy(found), truth, corners(image_size(image_a)))) < 3.0


@pytest.mark.data
def test_a_street_view_finds_its_own_place(real_images, tmp_path):
    folder = real_images / "streetview_west" / "images" / "test" / "database"
    names = sorted(path.name for path in folder.iterdir())[:40]
    extractor = load_extractor("sift-vlad")
    features = extractor.extract([decode_image(folder / name) for name in names])
    vectors = torch.stack([feature.global_descriptor for feature in features]).numpy()
    similarity = vectors @ vectors.T
    np.fill_diagonal(similarity, 0)
    # Four headings per spot: other views of the street are similar, but none is the same.
    assert 0.05 < similarity.max() < 0.99
