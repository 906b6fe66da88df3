"""The DHE head against a plain NumPy computation of the published network, and the estimator against known truth."""

import pickle
from functools import partial

import numpy as np
import pytest
import torch
from scipy.special import erf
from torch.nn.functional import normalize

from vpr_dhe.errors import ModelError, VerifierError
from vpr_dhe.features.base import ExtractorSpec
from vpr_dhe.models.model_file import Architecture, ModelFile
from vpr_dhe.records import Features, Frame, Grid, Preprocessing, Size
from vpr_dhe.runtime.cpu_features import has_bfloat16_products
from vpr_dhe.verification.estimators.base import View, match_by_grid
from vpr_dhe.verification.estimators.dhe import DheEstimator, DheHead
from vpr_dhe.verification.estimators.dhe.network import correlation_volume
from vpr_dhe.verification.verifier import Verifier

SIDE, CELLS = 24, 576
GRID = Grid(SIDE, SIDE)
INPUT = Size(384, 384)
SPEC = ExtractorSpec("test", "none", 4, 32, GRID, INPUT, unit_norm=False, tolerance_cells=3.0)
# In the published frame: the corners of a square, and where a homography of our choice takes them.
SQUARE = np.array([[0.0, 0.0], [384.0, 0.0], [384.0, 384.0], [0.0, 384.0]])


def numpy_correlation(query, candidate):
    """c[k, y, x]: k = x * 24 + y runs over the query's cells, (y, x) is the candidate's."""
    maps = query.reshape(SIDE, SIDE, -1), candidate.reshape(SIDE, SIDE, -1)
    volume = np.zeros((CELLS, SIDE, SIDE))
    for x in range(SIDE):
        for y in range(SIDE):
            volume[x * SIDE + y] = np.maximum(maps[1] @ maps[0][y, x], 0)
    return volume / np.maximum(np.sqrt((volume**2).sum(0, keepdims=True)), 1e-12)


def numpy_norm(x, state, name):
    centred = x - x.mean(-1, keepdims=True)
    unit = centred / np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-5)
    return unit * state[f"{name}.weight"] + state[f"{name}.bias"]


def numpy_linear(x, state, name):
    return x @ state[f"{name}.weight"].T + state[f"{name}.bias"]


def numpy_layer(x, state, name):
    projected = x @ state[f"{name}.self_attn.in_proj_weight"].T + state[f"{name}.self_attn.in_proj_bias"]
    attended = np.zeros_like(x)
    for head in range(12):
        queries, keys, values = (projected[:, part * CELLS + head * 48 :][:, :48] for part in range(3))
        scores = np.exp(queries @ keys.T / np.sqrt(48))
        attended[:, head * 48 : (head + 1) * 48] = scores / scores.sum(1, keepdims=True) @ values
    x = numpy_norm(x + numpy_linear(attended, state, f"{name}.self_attn.out_proj"), state, f"{name}.norm1")
    hidden = numpy_linear(x, state, f"{name}.linear1")
    hidden = hidden * 0.5 * (1 + erf(hidden / np.sqrt(2)))
    return numpy_norm(x + numpy_linear(hidden, state, f"{name}.linear2"), state, f"{name}.norm2")


def numpy_points(query, candidate, state):
    """The published output: 8 points, the query's before the candidate's, origin at the corner of the image."""
    by_query_cell = numpy_correlation(query, candidate).reshape(CELLS, CELLS) + state["pe"][0]
    x = by_query_cell.T
    for index in range(3):
        x = numpy_layer(x, state, f"encoder.layers.{index}")
    first = x
    for index in range(3):
        x = numpy_layer(x, state, f"encoder2.layers.{index}")
    return numpy_linear((x + first).T.reshape(-1), state, "linear").reshape(8, 2)


def local_maps(count, seed=0):
    raw = torch.randn(count, CELLS, 32, generator=torch.Generator().manual_seed(seed))
    return torch.nn.functional.normalize(raw, dim=-1)


def view(local_map, image_size=INPUT, grid=GRID):
    frame = Frame(image_size, INPUT)
    features = Features(torch.zeros(4), local_map, grid, frame)
    return View(frame, image=pytest.fail, features=lambda: features)


def head_that_says(query_points, candidate_points):
    """A head whose output does not depend on its input."""
    head = DheHead()
    with torch.no_grad():
        head.linear.weight.zero_()
        head.linear.bias.copy_(torch.tensor(np.concatenate([query_points, candidate_points])).flatten())
    return head


def numpy_project(homography, points):
    mapped = np.c_[points, np.ones(len(points))] @ homography.T
    return mapped[:, :2] / mapped[:, 2:]


def test_head_agrees_with_numpy(random_head):
    maps = local_maps(3)
    with torch.no_grad():
        points = random_head(maps[:1], maps[1:])
    state = {key: value.double().numpy() for key, value in random_head.state_dict().items()}
    expected = numpy_points(maps[0].double().numpy(), maps[2].double().numpy(), state) - 0.5
    found = torch.cat([points.query[1], points.candidate[1]]).numpy()
    assert np.abs(found - expected).max() < 1e-5 * np.abs(expected).max()
    assert (points.query[0] - points.query[1]).abs().max() > 1, "the test says nothing if points do not depend on maps"


def test_parameters_bear_the_published_names():
    with torch.device("meta"):
        state = {key: tuple(value.shape) for key, value in DheHead().state_dict().items()}
    assert len(state) == 3 + 2 * 3 * 12
    assert state["pe"] == (1, 576, 576)
    assert state["linear.weight"] == (16, 331776)
    assert state["encoder2.layers.2.self_attn.in_proj_weight"] == (1728, 576)
    assert state["encoder.layers.0.linear1.weight"] == (2048, 576)


def test_direction_is_from_query_to_candidate():
    truth = np.array([[1.1, 0.05, 12.0], [-0.04, 0.95, -7.0], [2e-4, -1e-4, 1.0]])
    # Points of ours have their origin half a pixel further than the published ones.
    estimator = DheEstimator(head_that_says(SQUARE, numpy_project(truth, SQUARE - 0.5) + 0.5))
    maps = local_maps(2)
    found = estimator.estimate(view(maps[0]), [view(maps[1])])
    assert found.valid.tolist() == [True]
    np.testing.assert_allclose(found.matrices[0], truth, rtol=1e-4, atol=1e-6)


def test_homography_is_between_the_original_images():
    truth = np.array([[1.1, 0.05, 12.0], [-0.04, 0.95, -7.0], [2e-4, -1e-4, 1.0]])
    estimator = DheEstimator(head_that_says(SQUARE, numpy_project(truth, SQUARE)))
    maps, sizes = local_maps(3), [Size(640, 480), Size(300, 900), Size(1600, 200)]
    views = [view(map_, size) for map_, size in zip(maps, sizes, strict=True)]
    found = estimator.estimate(views[0], views[1:])
    inputs = np.array([[30.0, 50.0], [300.0, 200.0], [111.0, 333.0]])
    original = inputs * np.array(sizes[0]) / 384 - 0.5
    for matrix, size in zip(found.matrices.numpy(), sizes[1:], strict=True):
        expected = numpy_project(truth, inputs) * np.array(size) / 384 - 0.5
        np.testing.assert_allclose(numpy_project(matrix, original), expected, rtol=1e-4)


def numpy_four_points(source, target):
    rows = []
    for (x, y), (u, v) in zip(source, target, strict=True):
        rows += [[x, y, 1, 0, 0, 0, -u * x, -u * y, -u], [0, 0, 0, x, y, 1, -v * x, -v * y, -v]]
    return np.linalg.svd(np.array(rows))[2][-1].reshape(3, 3)


def test_inliers_are_counted_as_published():
    generator = np.random.default_rng(1)
    local_noise = torch.from_numpy(generator.normal(size=(CELLS, 32))).float()
    query_map = local_maps(1)[0]
    # The candidate's map is the query's shifted by two cells to the right, with some noise.
    shifted = query_map.view(SIDE, SIDE, -1).roll(2, dims=1).flatten(0, 1)
    noisy = torch.nn.functional.normalize(shifted + 0.15 * local_noise, dim=-1)
    similarity = (query_map @ noisy.T).numpy()
    mutual = [k for k in range(CELLS) if similarity[:, similarity[k].argmax()].argmax() == k]
    published_centres = np.array([[8 + 16 * (k % SIDE), 8 + 16 * (k // SIDE)] for k in range(CELLS)])
    frame = Frame(Size(640, 480), INPUT)
    features = [Features(torch.zeros(4), map_, GRID, frame) for map_ in (query_map, noisy)]
    matches_of = match_by_grid(features[0], noisy[None], SPEC)
    query = View(frame, pytest.fail, lambda: features[0])
    candidate = View(frame, pytest.fail, lambda: features[1], partial(matches_of, 0))
    head, counts = head_that_says(SQUARE, SQUARE), set()
    for _ in range(3):
        targets = SQUARE + np.array([32, 0]) + generator.normal(scale=60, size=(4, 2))
        with torch.no_grad():
            head.linear.bias[8:] = torch.tensor(targets).flatten()
        homography = numpy_four_points(SQUARE, targets)
        predicted = numpy_project(homography, published_centres[mutual])
        errors = np.linalg.norm(predicted - published_centres[similarity[mutual].argmax(1)], axis=1)
        assert np.abs(errors - 48).min() > 1e-3, "no error may lie on the threshold itself"
        verification = Verifier(DheEstimator(head)).verify(query, [candidate])[0]
        assert verification.inliers == np.sum(errors < 48)
        counts.add(verification.inliers)
    assert len(counts) > 1


def test_neither_maps_nor_weights_are_changed(random_head):
    maps = local_maps(2)
    before, positions = maps.clone(), random_head.pe.detach().clone()
    DheEstimator(random_head).estimate(view(maps[0]), [view(maps[1])])
    assert torch.equal(maps, before)
    assert torch.equal(random_head.pe, positions)


def test_candidates_do_not_depend_on_their_batch(random_head):
    maps = local_maps(3)
    views = [view(map_) for map_ in maps]
    together = DheEstimator(random_head).estimate(views[0], views[1:])
    apart = DheEstimator(random_head, batch_size=1).estimate(views[0], views[1:])
    assert together.matrices.shape == (2, 3, 3)
    assert not torch.allclose(together.matrices[0], together.matrices[1], rtol=1e-2)
    torch.testing.assert_close(together.matrices, apart.matrices, rtol=1e-3, atol=1e-5)


def test_half_precision_maps_are_accepted(random_head):
    maps = local_maps(2).half()
    assert DheEstimator(random_head).estimate(view(maps[0]), [view(maps[1])]).valid.all()


@pytest.mark.skipif(not has_bfloat16_products(torch.device("cpu")), reason="this processor multiplies no bfloat16")
def test_bfloat16_moves_points_by_little(random_head):
    maps = local_maps(2)
    faster, exact = (
        DheEstimator(random_head, precision=precision)._predict(view(maps[0]), [view(maps[1])]).candidate
        for precision in ("bf16", "fp32")
    )
    scale_px = exact.abs().max()
    assert 0 < (faster - exact).abs().max() < 0.02 * scale_px


def test_no_candidates(random_head):
    found = DheEstimator(random_head).estimate(view(local_maps(1)[0]), [])
    assert found.matrices.shape == (0, 3, 3)
    assert found.valid.shape == (0,)


@pytest.mark.parametrize("points", [np.zeros((4, 2)), np.full((4, 2), np.nan), np.arange(8.0).reshape(4, 2)])
def test_degenerate_points_are_a_failure(points):
    maps = local_maps(2)
    found = DheEstimator(head_that_says(SQUARE, points)).estimate(view(maps[0]), [view(maps[1])])
    assert found.valid.tolist() == [False]
    assert torch.equal(found.matrices[0], torch.eye(3, dtype=torch.float64))


@pytest.mark.parametrize("grid", [Grid(16, 16), Grid(18, 32)])
def test_maps_of_another_grid(random_head, grid):
    fitting, other = local_maps(1)[0], torch.zeros(grid.rows * grid.columns, 32)
    for query, candidate in [(view(other, grid=grid), view(fitting)), (view(fitting), view(other, grid=grid))]:
        with pytest.raises(VerifierError, match=rf"24 x 24 cells, and this model makes {grid.rows} x {grid.columns}"):
            DheEstimator(random_head).estimate(query, [candidate])


def model_file(head, tensors):
    preprocessing = Preprocessing(384, 384, "bilinear", False, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
    return ModelFile("m", Architecture("cct_14_7x2_384", "gem", head=head), preprocessing, "", "", tensors)


def test_estimator_of_a_model_file(random_head):
    tensors = {f"head.{key}": value for key, value in random_head.state_dict().items()}
    estimator = DheEstimator.from_model(model_file("dhe", tensors))
    for key, value in estimator.head.state_dict().items():
        assert torch.equal(value, tensors[f"head.{key}"])


def test_model_without_a_head():
    for model in (None, model_file(None, {})):
        with pytest.raises(VerifierError, match="magsac"):
            DheEstimator.from_model(model)


def test_model_with_another_head():
    with pytest.raises(ModelError, match="not a DHE head") as raised:
        DheEstimator.from_model(model_file("dhe", {"head.pe": torch.zeros(1, 576, 576)}))
    assert "\n" not in str(raised.value)


def test_correlation_volume_against_loops():
    generator = torch.Generator().manual_seed(0)
    a, b = (normalize(torch.randn(*shape, 4, generator=generator), dim=-1) for shape in ((1, 6), (3, 5)))
    volume = correlation_volume(a, b)
    assert volume.shape == (3, 5, 6)
    for pair in range(3):
        for row in range(5):
            for column in range(6):
                expected = sum(float(x) * float(y) for x, y in zip(a[0, column], b[pair, row], strict=True))
                assert abs(float(volume[pair, row, column]) - expected) < 1e-6


def test_a_head_travels_to_the_actors_of_shards():
    """After its first use, an estimator holds a lock and predictors."""
    estimator = DheEstimator(DheHead(Grid(6, 6)), batch_size=3)
    estimator._predictor(torch.device("cpu"))
    again = pickle.loads(pickle.dumps(estimator))
    assert (again.batch_size, again.precision) == (3, "fp32")
    assert all(torch.equal(*pair) for pair in zip(again.head.parameters(), estimator.head.parameters(), strict=True))
