"""Local heads: unit descriptors or none, from the cells around a cell alone, in every runtime and in model files."""

from dataclasses import asdict, replace

import numpy as np
import pytest
import torch
from random_models import random_model
from torch.nn.functional import normalize

from vpr_dhe.errors import ModelError
from vpr_dhe.features.local_head import CONTEXT, MIN_RELIABILITY, LocalHead, LocalHeadSizes, build_local_head
from vpr_dhe.features.neural_extractor import NeuralExtractor
from vpr_dhe.features.onnx_extractor import OnnxExtractor
from vpr_dhe.features.onnx_graphs import convert, graph_key
from vpr_dhe.models.model_file import load_model
from vpr_dhe.records import Grid

GRID = Grid(5, 7)
DIMENSION = 6


@pytest.fixture
def head():
    torch.manual_seed(0)
    return LocalHead(DIMENSION, LocalHeadSizes(hidden=8, dimension=4)).eval()


def random_tokens(images=2):
    return torch.randn(images, GRID.rows * GRID.columns, DIMENSION, generator=torch.Generator().manual_seed(1))


@torch.inference_mode()
def test_descriptors_and_reliabilities_are_those_of_plain_loops(head):
    tokens = random_tokens(1)
    descriptors, logits = head.cells(tokens, GRID)
    unit = 8 * normalize(tokens[0], dim=-1).reshape(*GRID, DIMENSION)
    padded = torch.zeros(GRID.rows + 2, GRID.columns + 2, DIMENSION)
    padded[1:-1, 1:-1] = unit
    for row, column in ((0, 0), (2, 3), (4, 6)):
        around = padded[row : row + 3, column : column + 3]
        hidden = torch.einsum("hdrc,rcd->h", head.context.weight, around) + head.context.bias
        hidden = hidden.clamp(min=0)
        expected = head.descriptor.weight[:, :, 0, 0] @ hidden + head.descriptor.bias
        expected = expected + head.shortcut.weight[:, :, 0, 0] @ unit[row, column]
        cell = row * GRID.columns + column
        torch.testing.assert_close(descriptors[0, cell], expected / expected.norm())
        torch.testing.assert_close(
            logits[0, cell], (head.reliability.weight[0, :, 0, 0] @ hidden + head.reliability.bias)[0]
        )


@torch.inference_mode()
def test_unreliable_cells_have_no_descriptor(head):
    tokens = random_tokens()
    _, logits = head.cells(tokens, GRID)
    # Half of the cells on either side.
    head.reliability.bias += torch.logit(torch.tensor(MIN_RELIABILITY)) - logits.median()
    norms, (_, logits) = head(tokens, GRID).norm(dim=-1), head.cells(tokens, GRID)
    reliable = logits.sigmoid() >= MIN_RELIABILITY
    assert 0 < int(reliable.sum()) < reliable.numel()
    torch.testing.assert_close(norms, reliable.float())


@torch.inference_mode()
def test_an_image_alone_has_the_map_that_it_has_in_a_batch(head):
    tokens = random_tokens(3)
    together = head(tokens, GRID)
    for number in range(3):
        torch.testing.assert_close(head(tokens[number : number + 1], GRID)[0], together[number])
    # The length of tokens does not matter.
    torch.testing.assert_close(head(3 * tokens, GRID), together)


def test_sizes_are_read_off_the_tensors(head):
    again = build_local_head(CONTEXT, DIMENSION, head.state_dict())
    again.load_state_dict(head.state_dict())
    assert LocalHeadSizes.of(head.state_dict()) == LocalHeadSizes(hidden=8, dimension=4)
    assert LocalHeadSizes.of({}) == LocalHeadSizes()


def test_another_head_is_refused_by_name():
    with pytest.raises(ModelError, match="no local head 'attention'; expected 'context'"):
        build_local_head("attention", DIMENSION)


@pytest.fixture
def models():
    """A model of random weights without and with a local head."""
    without = random_model("timm-cnn:resnet10t", "gem", None, 64)
    dimension = NeuralExtractor(without, "without", torch.device("cpu")).spec.local_dimension
    torch.manual_seed(0)
    state = LocalHead(dimension, LocalHeadSizes(hidden=8, dimension=4)).state_dict()
    return without, without.with_local_head(CONTEXT, state)


def test_a_model_file_keeps_the_head(models, tmp_path):
    without, model = models
    model.save(tmp_path / "model.safetensors")
    stored = load_model(tmp_path / "model.safetensors")
    assert stored.architecture.local_head == CONTEXT
    assert stored.extractor_fingerprint == model.extractor_fingerprint != without.extractor_fingerprint
    assert stored.without_local_head().extractor_fingerprint == without.extractor_fingerprint
    assert asdict(stored.without_local_head().architecture) == asdict(without.architecture)
    assert graph_key(model) != graph_key(without)


def test_files_of_models_without_one_stay_as_they_were(models, tmp_path):
    without, _ = models
    without.save(tmp_path / "model.safetensors")
    assert b"local_head" not in (tmp_path / "model.safetensors").read_bytes()


def test_vectors_stay_and_maps_become_those_of_the_head(models):
    image = np.kron(np.random.default_rng(0).integers(0, 256, (6, 9, 3), np.uint8), np.ones((30, 30, 1), np.uint8))
    (before,), (after,) = (NeuralExtractor(model, "a", torch.device("cpu")).extract([image]) for model in models)
    torch.testing.assert_close(after.global_descriptor, before.global_descriptor)
    assert (after.local_map.shape[1], after.grid) == (4, before.grid)


@pytest.mark.slow
def test_onnx_runtime_computes_the_same_without_weights_of_its_own(models):
    pytest.importorskip("onnxscript")
    _, model = models
    found = OnnxExtractor.of_model(model, "model", convert(model))
    expected = NeuralExtractor(model, "model", torch.device("cpu"))
    assert found.spec == expected.spec
    image = np.kron(np.random.default_rng(1).integers(0, 256, (6, 9, 3), np.uint8), np.ones((30, 30, 1), np.uint8))
    (ours,), (theirs,) = found.extract([image]), expected.extract([image])
    torch.testing.assert_close(ours.local_map, theirs.local_map, rtol=0, atol=1e-4)


def test_a_head_was_trained_for_other_local_maps(models):
    without, _ = models
    with_head = replace(without, architecture=replace(without.architecture, head="dhe-lite"))
    assert with_head.with_local_head(CONTEXT, {}).architecture.head is None
