"""Extractors of models that keep the sizes of images."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from random_models import random_model

from vpr_dhe.features.neural_extractor import NeuralExtractor
from vpr_dhe.features.onnx_extractor import OnnxExtractor
from vpr_dhe.features.onnx_graphs import convert
from vpr_dhe.images.preprocessing import to_network_input
from vpr_dhe.records import Grid

CPU = torch.device("cpu")
SIDE = 64
SIZES = [(64, 64), (48, 80), (64, 64), (96, 128), (33, 70)]
"""Heights and widths of images; the fourth is shrunk to a short side of 64."""


@pytest.fixture(scope="module")
def model():
    made = random_model("timm-cnn:resnet10t", "gem-linear", None, SIDE)
    return replace(made, preprocessing=replace(made.preprocessing, resize_mode="short_side"))


@pytest.fixture(scope="module")
def images():
    generator = np.random.default_rng(0)
    return [generator.integers(0, 256, (*size, 3), dtype=np.uint8) for size in SIZES]


@pytest.fixture(scope="module")
def extractor(model):
    return NeuralExtractor(model, "random", CPU)


def test_descriptors_are_those_of_the_images_at_their_own_size(model, extractor, images):
    found = extractor.extract(images)
    for (height, width), image, features in zip([*SIZES[:3], (64, 85), SIZES[4]], images, found, strict=True):
        own = replace(model.preprocessing, width=width, height=height)
        with torch.no_grad():
            tokens = extractor.network.backbone(to_network_input([image], own, CPU))
            expected = extractor.network.aggregator(tokens)[0]
        torch.testing.assert_close(features.global_descriptor, expected, rtol=1e-4, atol=1e-6)
        assert (features.grid, features.local_map.shape[0]) == (Grid(4, 4), 16)


def test_features_do_not_depend_on_the_batch(extractor, images):
    together = extractor.extract(images)
    for image, features in zip(images, together, strict=True):
        (alone,) = extractor.extract([image])
        torch.testing.assert_close(features.global_descriptor, alone.global_descriptor, rtol=1e-4, atol=1e-6)
        torch.testing.assert_close(features.local_map, alone.local_map, rtol=1e-4, atol=1e-5)


def test_local_maps_of_the_nominal_size_are_not_interpolated(model, extractor):
    image = np.random.default_rng(1).integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)
    preprocessing = replace(model.preprocessing, resize_mode="squeeze")
    squeezed = NeuralExtractor(replace(model, preprocessing=preprocessing), "random", CPU)
    (own,), (expected,) = extractor.extract([image]), squeezed.extract([image])
    torch.testing.assert_close(own.local_map, expected.local_map, rtol=1e-4, atol=1e-5)


@pytest.mark.slow
def test_onnx_takes_all_sizes(model, extractor, images):
    onnx = OnnxExtractor.of_model(model, "random", convert(model))
    assert onnx.spec == extractor.spec
    for found, expected in zip(onnx.extract(images), extractor.extract(images), strict=True):
        torch.testing.assert_close(found.global_descriptor, expected.global_descriptor, rtol=1e-4, atol=1e-6)
        torch.testing.assert_close(found.local_map, expected.local_map, rtol=1e-4, atol=1e-5)
