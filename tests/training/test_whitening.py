"""Whitening: what the projection does to the vectors it is learned from, and what becomes of a model."""

import numpy as np
import PIL.Image
import pytest
import torch

from vpr_dhe.errors import BadInputError, ModelError
from vpr_dhe.features.neural_extractor import NeuralExtractor
from vpr_dhe.images.decoding import decode_image
from vpr_dhe.models.catalogue import open_model
from vpr_dhe.models.model_file import load_model
from vpr_dhe.records import Size
from vpr_dhe.training.sources import open_training_data
from vpr_dhe.training.trainable_extractor import new_model
from vpr_dhe.training.whitening import WhiteningSettings, projection_of, whiten

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    folder, rng = tmp_path_factory.mktemp("photos"), np.random.default_rng(3)
    for number in range(20):
        coarse = PIL.Image.fromarray(rng.integers(0, 256, (10, 10, 3), np.uint8))
        coarse.resize((90, 90), PIL.Image.Resampling.BICUBIC).save(folder / f"{number:02}.png")
    return folder


@pytest.mark.parametrize(("power", "left"), [(0.5, 0.0), (0.4, 0.2)])
def test_projected_vectors_are_centred_and_uncorrelated(power, left):
    rng = np.random.default_rng(0)
    scales = np.array([4.0, 2.0, 1.0, 0.5, 0.25])
    rotation = np.linalg.qr(rng.normal(size=(5, 5)))[0]
    vectors = (rng.normal(size=(4000, 5)) * scales @ rotation + 3.0).astype(np.float32)
    projection, offset = projection_of(vectors, 3, power)
    whitened = vectors @ projection.T - offset
    covariance = np.cov(whitened.T)
    assert np.abs(whitened.mean(0)).max() < 1e-3 * whitened.std()
    spread = np.sqrt(np.diag(covariance))
    np.testing.assert_allclose(spread / spread[0], (scales[:3] / scales[0]) ** left, rtol=0.05)
    correlation = covariance / np.outer(spread, spread)
    assert np.abs(correlation - np.eye(3)).max() < 0.05


def test_a_ridge_is_added_to_the_variances():
    rng = np.random.default_rng(0)
    variances = np.array([16.0, 4.0, 1.0])
    vectors = (rng.normal(size=(20_000, 3)) * np.sqrt(variances)).astype(np.float32)
    projection, _ = projection_of(vectors, 3, 0.25, ridge=2.0)
    lengths = np.linalg.norm(projection, axis=1)
    np.testing.assert_allclose(lengths / lengths[0], ((variances + 14) / (variances[0] + 14)) ** -0.25, rtol=0.02)


@pytest.mark.slow
def test_a_whitened_model_tells_images_further_apart(photos, tmp_path):
    model = new_model("cct_7_7x2_224", "gem", Size(64, 64), seed=0)
    source = open_training_data([str(photos)], model.preprocessing.size).warps
    result = whiten(model, source, WhiteningSettings("gem-whitened", pairs=280), CPU)
    result.in_half_precision().save(tmp_path / "half.safetensors")
    images = [decode_image(path) for path in sorted(photos.iterdir())]

    def alike(model):
        vectors = torch.stack([image.global_descriptor for image in NeuralExtractor(model, "m", CPU).extract(images)])
        cosines = torch.nn.functional.normalize(vectors, dim=1) @ torch.nn.functional.normalize(vectors, dim=1).mT
        return float(cosines[~torch.eye(len(images), dtype=torch.bool)].mean())

    assert alike(model) > 0.9
    assert alike(result) < 0.3
    assert alike(load_model(tmp_path / "half.safetensors")) == pytest.approx(alike(result), abs=0.02)
    assert result.architecture.aggregator == "gem-whitened"
    assert all(torch.equal(result.tensors[name], model.tensors[name]) for name in model.tensors if "backbone" in name)


def test_what_cannot_be_whitened(photos):
    model = new_model("cct_7_7x2_224", "gem", Size(64, 64), seed=0)
    source = open_training_data([str(photos)], model.preprocessing.size).warps
    with pytest.raises(BadInputError, match="9 pairs are too few to whiten 512 dimensions"):
        whiten(model, source, WhiteningSettings(pairs=9), CPU)
    with pytest.raises(ModelError, match="has the aggregator vlad"):
        whiten(open_model("sift-vlad"), source, WhiteningSettings(), CPU)
