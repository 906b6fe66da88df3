"""The bundled `lite-vlad`: a truncated network, the same features in any batch and runtime."""

import numpy as np
import pytest
import timm
import torch

from vpr_dhe.features.exportable import extractor_network
from vpr_dhe.features.extractor import load_extractor
from vpr_dhe.images.preprocessing import to_network_input
from vpr_dhe.models.catalogue import open_model
from vpr_dhe.models.names import LITE_VLAD
from vpr_dhe.models.onnx_conversion import write_onnx
from vpr_dhe.models.onnx_session import OnnxSession
from vpr_dhe.records import Grid, Size


@pytest.fixture(scope="module")
def extractor():
    return load_extractor(LITE_VLAD, runtime="torch")


@pytest.fixture(scope="module")
def images():
    random = np.random.default_rng(0)
    coarse = [random.integers(0, 256, (height, 9, 3), np.uint8) for height in (6, 9, 12)]
    return [np.kron(image, np.ones((30, 30, 1), np.uint8)) for image in coarse]


def test_one_pass_gives_a_vector_and_a_map(extractor, images):
    spec = extractor.spec
    assert (spec.dimension, spec.local_dimension, spec.grid) == (768, 64, Grid(20, 20))
    assert (spec.input_size, spec.unit_norm) == (Size(320, 320), True)
    (features,) = extractor.extract(images[:1])
    assert (features.global_descriptor.shape, features.local_map.shape) == ((768,), (400, 64))
    norms = features.local_map.norm(dim=1)
    torch.testing.assert_close(norms, (norms > 0).float())


def test_nothing_beyond_the_cut_is_stored_or_computed(extractor):
    tensors = open_model(LITE_VLAD).part("backbone")
    whole = timm.create_model("tf_efficientnet_lite0").state_dict()
    cut = ("conv_head.", "bn2.", "classifier.", "blocks.4.", "blocks.5.", "blocks.6.")
    kept = {name for name in whole if not name.startswith(cut)}
    assert tensors.keys() == kept
    assert all(tensors[name].shape == whole[name].shape for name in kept)
    assert sum(parameter.numel() for parameter in extractor.network.backbone.parameters()) < 270_000


def test_a_batch_changes_no_features(extractor, images):
    for together, image in zip(extractor.extract_batch(_batch(images)).vectors, images, strict=True):
        alone = extractor.extract_batch(_batch([image])).vectors[0]
        torch.testing.assert_close(together, alone, rtol=0, atol=1e-5)
    for features, image in zip(extractor.extract(images), images, strict=True):
        (alone,) = extractor.extract([image])
        torch.testing.assert_close(features.global_descriptor, alone.global_descriptor, rtol=0, atol=1e-5)
        torch.testing.assert_close(features.local_map, alone.local_map, rtol=0, atol=1e-5)


@pytest.mark.slow
def test_onnx_runtime_computes_the_same(extractor, images, tmp_path):
    network = extractor_network(extractor, extractor.model_file.preprocessing)
    assert write_onnx(network, tmp_path / "lite.onnx", {}).relative_difference < 1e-4
    vectors, maps = OnnxSession(tmp_path / "lite.onnx")(_batch(images))
    expected = extractor.extract_batch(_batch(images))
    for found, wanted in ((vectors, expected.vectors), (maps, expected.local_maps)):
        torch.testing.assert_close(found, wanted, rtol=0, atol=1e-4)


def _batch(images):
    return to_network_input(images, open_model(LITE_VLAD).preprocessing, torch.device("cpu"))
