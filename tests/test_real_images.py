"""What is claimed of real images, measured again."""

import numpy as np
import pytest
import torch

from vpr_dhe.candidates import VerifiedIndex
from vpr_dhe.estimators import build_estimator
from vpr_dhe.evaluation.runs import evaluate, index_database
from vpr_dhe.features.extractor import load_extractor
from vpr_dhe.geometry.coordinates import corners
from vpr_dhe.geometry.homography import mean_corner_error
from vpr_dhe.images import decode_image, image_size
from vpr_dhe.localizer import Localizer, build_verifier
from vpr_dhe.places import read_places
from vpr_dhe.places.homography_pairs import read_homography_pairs
from vpr_dhe.verification import Verifier, align


@pytest.mark.slow
@pytest.mark.data
def test_street_views_are_recognised_better_than_by_the_prototype(real_images, tmp_path):
    dataset = read_places(real_images / "streetview_west")
    extractor = load_extractor("sift-vlad")
    index = index_database(dataset, extractor, tmp_path / "index", batch_size=8, progress=lambda _: None)
    localizer = Localizer(VerifiedIndex(index, build_verifier("magsac", extractor)), extractor)
    result = evaluate(dataset, localizer, "magsac", manifest=index.manifest)
    assert result.num_queries == 564
    assert result.retrieval[1] >= 65.8
    assert result.reranked[1] >= 73.8


@pytest.mark.slow
@pytest.mark.data
def test_easy_pairs_are_aligned_to_a_few_pixels(real_images):
    for pair in read_homography_pairs(real_images / "homography_pairs"):
        if pair.name not in {"adam", "city", "Boston"}:
            continue
        image_a, image_b = decode_image(pair.image_a), decode_image(pair.image_b)
        found = align(image_a, image_b, Verifier(build_estimator("magsac", None))).homography
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
