"""`vlad` and `netvlad` against an independent formula, and what may not change or break them."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from vpr_dhe.errors import ModelError
from vpr_dhe.features.aggregators import build_aggregator
from vpr_dhe.features.aggregators.vlad import VladSizes, assignment_of
from vpr_dhe.features.base import DenseTokens
from vpr_dhe.features.dense_sift import DenseDescriptors
from vpr_dhe.features.extractor import load_extractor
from vpr_dhe.features.local_head import LocalHead, LocalHeadSizes
from vpr_dhe.features.neural_extractor import NeuralExtractor
from vpr_dhe.features.vlad import Vocabulary, band_weights, banded_vlad
from vpr_dhe.models.model_file import ModelFile, load_model
from vpr_dhe.records import Grid, Size
from vpr_dhe.training.trainable_extractor import TrainableExtractor, new_model

NAMES = ["vlad", "netvlad"]
GRID = Grid(8, 5)


def state_of(name, *, dimension=6, words=3, bands=2, reduced=4, out=5, seed=0) -> dict[str, torch.Tensor]:
    random = np.random.default_rng(seed)
    shapes = {
        "mean": (dimension,),
        "whitening": (dimension, reduced),
        "centres": (words, reduced),
        "projection": (out, bands * words * reduced),
        "offset": (out,),
    }
    if name == "netvlad":
        shapes |= {"assignment.weight": (words, reduced), "assignment.bias": (words,)}
    return {key: torch.from_numpy(random.normal(size=shape)).float() for key, shape in shapes.items()}


def built(name, state):
    aggregator = build_aggregator(name, len(state["mean"]), state)
    aggregator.load_state_dict(state)
    return aggregator


def some_tokens(batch=2, dimension=6, seed=1) -> DenseTokens:
    random = torch.Generator().manual_seed(seed)
    return DenseTokens(torch.randn(batch, GRID.rows * GRID.columns, dimension, generator=random), GRID)


def by_definition(name, cells, state, bands):
    """The vector of one image, word by word and cell by cell."""
    state = {key: value.double().numpy() for key, value in state.items()}
    return state["projection"] @ unprojected_by_definition(name, cells, state, bands) - state["offset"]


def unprojected_by_definition(name, cells, state, bands, weights=None):
    words = len(state["centres"])
    blocks = np.zeros((bands, words, state["centres"].shape[1]))
    for index, cell in enumerate(cells):
        point = (cell / np.linalg.norm(cell) - state["mean"]) @ state["whitening"]
        height = (index // GRID.columns + 0.5) / GRID.rows
        for band in range(bands):
            # Trapezia that cross at the edges of the bands, over a quarter of a band on either side.
            ramp = 0.5 / bands
            from_top = 1.0 if band == 0 else np.clip((height - band / bands) / ramp + 0.5, 0, 1)
            from_bottom = 1.0 if band == bands - 1 else np.clip(((band + 1) / bands - height) / ramp + 0.5, 0, 1)
            weight = min(from_top, from_bottom) * (1.0 if weights is None else weights[index])
            if name == "vlad":
                nearest = np.argmin([np.linalg.norm(point - centre) for centre in state["centres"]])
                residual = point - state["centres"][nearest]
                blocks[band, nearest] += weight * residual / np.linalg.norm(residual)
            else:
                logits = state["assignment.weight"] @ point + state["assignment.bias"]
                soft = np.exp(logits) / np.exp(logits).sum()
                for word in range(words):
                    blocks[band, word] += weight * soft[word] * (point - state["centres"][word])
    norms = np.linalg.norm(blocks, axis=2, keepdims=True)
    vector = (blocks / np.where(norms > 0, norms, 1)).ravel()
    return vector / np.linalg.norm(vector)


@pytest.mark.parametrize("bands", [1, 2, 3])
@pytest.mark.parametrize("name", NAMES)
def test_it_agrees_with_its_formula(name, bands):
    state, tokens = state_of(name, bands=bands), some_tokens()
    with torch.no_grad():
        found = built(name, state)(tokens).numpy()
    for vector, cells in zip(found, tokens.patches.double().numpy(), strict=True):
        np.testing.assert_allclose(vector, by_definition(name, cells, state, bands), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("bands", [1, 2])
def test_a_joint_vlad_agrees_with_its_formula(bands):
    """Soft for tokens, hard for descriptors, which are weighted by their reliability; one projection of both."""
    head = LocalHead(6, LocalHeadSizes(hidden=8, dimension=7))
    sizes = {"tokens": {"words": 3, "reduced": 4}, "local": {"dimension": 7, "words": 2, "reduced": 5}}
    names, state = {"tokens": "netvlad", "local": "vlad"}, {}
    for part, name in names.items():
        made = state_of(name, bands=bands, seed=len(part), **sizes[part])
        state |= {f"{part}.{key}": value for key, value in made.items() if key not in ("projection", "offset")}
    random = torch.Generator().manual_seed(2)
    unprojected = bands * (3 * 4 + 2 * 5)
    state |= {
        "projection": torch.randn(9, unprojected, generator=random),
        "offset": torch.randn(9, generator=random),
    }
    whole = state | {f"head.{name}": value for name, value in head.state_dict().items()}
    joint, tokens = build_aggregator("joint-vlad", 6, whole), some_tokens()
    joint.load_state_dict(whole)
    with torch.no_grad():
        found = joint(tokens).numpy()
        descriptors, logits = head.cells(tokens.patches, GRID)
    numbers = {key: value.double().numpy() for key, value in state.items()}
    for row, vector in enumerate(found):
        parts = []
        for part, name in names.items():
            own = {key.removeprefix(f"{part}."): value for key, value in numbers.items() if key.startswith(part)}
            each = (tokens.patches if part == "tokens" else descriptors)[row].double().numpy()
            weights = None if part == "tokens" else logits.sigmoid()[row].double().numpy()
            parts.append(unprojected_by_definition(name, each, own, bands, weights))
        expected = numbers["projection"] @ np.concatenate(parts) - numbers["offset"]
        np.testing.assert_allclose(vector, expected, rtol=1e-4, atol=1e-4)


def test_two_bands_are_those_of_sift_vlad_to_the_last_bit():
    height = np.random.default_rng(0).random(2000).astype(np.float32)
    upper = np.clip(np.float32(0.5) - np.float32(4.0) * (height - np.float32(0.5)), 0.0, 1.0)
    found = band_weights(torch.from_numpy(height), 2).numpy()
    assert np.array_equal(found, np.stack([upper, 1 - upper]))


@given(st.integers(1, 9), st.lists(st.floats(0, 1), min_size=1, max_size=9))
def test_weights_of_bands_sum_to_one(bands, heights):
    weights = band_weights(torch.tensor(heights), bands)
    assert weights.shape == (bands, len(heights))
    assert bool((weights >= 0).all())
    torch.testing.assert_close(weights.sum(0), torch.ones(len(heights)))


@given(st.permutations(range(10)), st.permutations(range(10)), st.sampled_from(NAMES))
@settings(max_examples=20)
def test_the_order_of_cells_within_a_band_changes_nothing(top, bottom, name):
    """The outer two of eight rows, of five cells each, belong to one of two bands alone."""
    tokens = some_tokens()
    order = torch.tensor([*top, *range(10, 30), *(30 + index for index in bottom)])
    aggregator = built(name, state_of(name))
    with torch.no_grad():
        shuffled = aggregator(DenseTokens(tokens.patches[:, order], GRID))
        torch.testing.assert_close(shuffled, aggregator(tokens), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", NAMES)
def test_an_image_upside_down_is_another(name):
    tokens, aggregator = some_tokens(), built(name, state_of(name))
    with torch.no_grad():
        turned = aggregator(DenseTokens(tokens.patches.flip(1), GRID))
        assert float((turned - aggregator(tokens)).norm()) > 0.1


@pytest.mark.parametrize("value", [0.0, 1.0])
@pytest.mark.parametrize("name", NAMES)
def test_empty_words_and_equal_cells_stay_finite(name, value):
    patches = torch.full((1, GRID.rows * GRID.columns, 6), value).requires_grad_()
    aggregator = built(name, state_of(name, words=20))
    vectors = aggregator(DenseTokens(patches, GRID))
    vectors.square().sum().backward()
    assert bool(torch.isfinite(vectors).all())
    assert patches.grad is not None
    for gradient in (patches.grad, *(parameter.grad for parameter in aggregator.parameters())):
        assert gradient is not None
        assert bool(torch.isfinite(gradient).all())


def test_every_cell_on_its_word_stays_finite():
    """Residuals of zero have no direction."""
    state = state_of("vlad", words=1)
    state |= {"mean": torch.zeros(6), "centres": (torch.eye(6)[0] @ state["whitening"])[None]}
    patches = torch.eye(6)[0].expand(1, GRID.rows * GRID.columns, 6).clone().requires_grad_()
    vectors = built("vlad", state)(DenseTokens(patches, GRID))
    vectors.square().sum().backward()
    torch.testing.assert_close(vectors, -state["offset"][None])
    assert patches.grad is not None
    assert bool(torch.isfinite(patches.grad).all())


def test_soft_assignment_is_a_softmax_of_distances():
    random = torch.Generator().manual_seed(0)
    centres, points = torch.randn(3, 4, generator=random), torch.randn(7, 4, generator=random)
    weight, bias = assignment_of(centres, 1.5)
    expected = (-1.5 * torch.cdist(points, centres).square()).softmax(1)
    torch.testing.assert_close((points @ weight.T + bias).softmax(1), expected)


def test_a_sharp_soft_assignment_sums_residuals_of_the_nearest_word():
    state = state_of("netvlad", bands=1)
    state["assignment.weight"], state["assignment.bias"] = assignment_of(state["centres"], 1e4)
    tokens, aggregator = some_tokens(batch=1), built("netvlad", state)
    points = aggregator.points(tokens.patches)[0].detach()
    nearest = torch.cdist(points, state["centres"]).argmin(1)
    blocks = torch.stack([(points[nearest == word] - state["centres"][word]).sum(0) for word in range(3)])
    expected = torch.nn.functional.normalize(torch.nn.functional.normalize(blocks, dim=1).flatten(), dim=0)
    torch.testing.assert_close(aggregator.unprojected(tokens)[0].detach(), expected, rtol=1e-4, atol=1e-5)


def a_model(name, sizes: dict[str, int]) -> ModelFile:
    model = new_model("cct_7_7x2_224", name, Size(32, 32), seed=0)
    state = state_of(name, dimension=256, **sizes)
    kept = {key: value for key, value in model.tensors.items() if not key.startswith("aggregator.")}
    return ModelFile(
        model.name,
        model.architecture,
        model.preprocessing,
        "none",
        "none",
        {**kept, **{f"aggregator.{key}": value for key, value in state.items()}},
    )


@pytest.mark.parametrize("name", NAMES)
def test_a_model_file_carries_all_sizes(name, tmp_path):
    model = a_model(name, {"words": 5, "bands": 3, "reduced": 7, "out": 11})
    model.save(tmp_path / "model.safetensors")
    stored = load_model(tmp_path / "model.safetensors")
    assert VladSizes.of(stored.part("aggregator")) == VladSizes(words=5, bands=3, reduced=7, dimension=11)
    extractor = load_extractor(str(tmp_path / "model.safetensors"))
    assert extractor.spec.fingerprint == stored.extractor_fingerprint == model.extractor_fingerprint
    assert extractor.spec.dimension == 11
    assert isinstance(extractor, NeuralExtractor)
    before = NeuralExtractor(model, "model", torch.device("cpu"))
    batch = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    vectors = extractor.extract_batch(batch).vectors
    assert torch.equal(vectors, before.extract_batch(batch).vectors)
    trainable = TrainableExtractor(stored).eval()
    with torch.no_grad():
        torch.testing.assert_close(trainable(batch).vectors, torch.nn.functional.normalize(vectors, dim=1))
    assert VladSizes.of(trainable.model_file("more").part("aggregator")) == VladSizes.of(stored.part("aggregator"))


@pytest.mark.parametrize("name", NAMES)
def test_a_model_file_of_wrong_shapes_is_refused(name):
    model = a_model(name, {})
    for broken in (torch.zeros(5), torch.zeros(5, 7)):
        tensors = {**model.tensors, "aggregator.projection": broken}
        with pytest.raises(ModelError, match="does not fit its architecture"):
            NeuralExtractor(replace(model, tensors=tensors), "model", torch.device("cpu"))


def test_sift_vlad_takes_the_number_of_bands_from_its_arrays():
    random = np.random.default_rng(0)
    vocabulary = Vocabulary(
        np.zeros(128, np.float32),
        random.normal(size=(128, 4)).astype(np.float32),
        random.normal(size=(3, 4)).astype(np.float32),
    )
    local = DenseDescriptors(
        random.random((50, 128), np.float32), random.random(50, np.float32), np.linspace(0, 1, 50, dtype=np.float32)
    )
    whole, parts = banded_vlad(local, vocabulary, 1), banded_vlad(local, vocabulary, 4)
    assert (len(whole), len(parts)) == (3 * 4, 4 * 3 * 4)
    assert np.linalg.norm(parts) == pytest.approx(1, abs=1e-5)
