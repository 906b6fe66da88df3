"""Adapted similarities: one number per image gives the cosine of transformed vectors, in every kind of search."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from made_up_codes import codes_of

from tests.index.adaptation.towns import DIMENSION, town
from vpr_dhe.index.adaptation.adapted_vectors import AdaptedRows, prepared
from vpr_dhe.index.adaptation.hubs import NEIGHBOURS, hub_means
from vpr_dhe.index.adaptation.transform import VectorTransform
from vpr_dhe.index.adaptation.whitening import MAX_AXES, fit_whitening
from vpr_dhe.index.vectors import INDEX_TYPES, ApproximateIndex, RowTerms, Stack, build_vector_file, exact_search

# What a file promises is tuned and measured as for users.
pytestmark = pytest.mark.usefixtures("usual_measurements")

WEIGHT = 0.5


def unit_rows(random: np.random.Generator, count: int, dimension: int) -> np.ndarray:
    rows = random.standard_normal((count, dimension)) + 0.5
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def some_transform(random: np.random.Generator, dimension: int, axes: int) -> VectorTransform:
    basis = np.linalg.qr(random.standard_normal((dimension, dimension)))[0][:axes].astype(np.float32)
    mean = unit_rows(random, 50, dimension).mean(axis=0)
    return VectorTransform(mean, basis, random.uniform(-0.8, 2, axes).astype(np.float32))


@given(st.integers(0, 1000), st.integers(0, 12))
def test_duals_and_scales_give_the_cosine_of_transformed_vectors(seed, axes):
    random = np.random.default_rng(seed)
    transform = some_transform(random, 12, axes)
    rows, queries = unit_rows(random, 9, 12), unit_rows(random, 4, 12)
    duals, biases = transform.duals(transform.apply(queries))
    whitening = np.eye(12) + transform.axes.T @ np.diag(transform.gains) @ transform.axes
    left, right = ((vectors - transform.mean) @ whitening for vectors in (queries, rows))
    cosines = (left @ right.T) / np.outer(np.linalg.norm(left, axis=1), np.linalg.norm(right, axis=1))
    np.testing.assert_allclose((duals @ rows.T + biases[:, None]) * transform.scales(rows), cosines, atol=2e-5)
    np.testing.assert_allclose(transform.apply(queries) @ transform.apply(rows).T, cosines, atol=2e-5)


def test_a_vector_equal_to_the_mean_is_similar_to_nothing():
    random = np.random.default_rng(0)
    transform = some_transform(random, 12, 12)
    assert transform.scales(transform.mean[None]) == 0
    assert not transform.apply(transform.mean[None]).any()


def test_whitening_evens_out_what_varies_within_places():
    random = np.random.default_rng(1)
    deviations = np.array([3.0, 1.0, 1.0, 0.1, 0.1, 0.1])
    differences = (random.standard_normal((4000, 6)) * deviations).astype(np.float32)
    transform = fit_whitening(np.zeros(6, np.float32), differences)
    ridge = (deviations**2).mean()
    expected = 1 / np.sqrt(deviations**2 + ridge)
    weights = np.linalg.norm(np.eye(6) + transform.axes.T @ np.diag(transform.gains) @ transform.axes, axis=0)
    np.testing.assert_allclose(weights / weights[0], expected / expected[0], rtol=0.05)


def test_fewer_pairs_whiten_less():
    random = np.random.default_rng(2)
    differences = (random.standard_normal((600, 60)) * np.linspace(3, 0.1, 60)).astype(np.float32)
    many, few = (fit_whitening(np.zeros(60, np.float32), differences[:count]) for count in (600, 12))
    assert np.abs(many.gains).mean() > 2 * np.abs(few.gains).mean()


def test_many_dimensions_are_whitened_along_the_largest_ones():
    random = np.random.default_rng(3)
    dimension = MAX_AXES + 64
    differences = random.standard_normal((80, dimension)).astype(np.float32)
    differences[:, 0] *= 30
    transform = fit_whitening(np.zeros(dimension, np.float32), differences)
    assert len(transform.gains) == 80
    np.testing.assert_allclose(transform.axes @ transform.axes.T, np.eye(80), atol=1e-4)
    assert abs(transform.axes[transform.gains.argmin(), 0]) > 0.99


def test_a_hub_is_the_mean_of_its_nearest_at_other_places():
    random = np.random.default_rng(4)
    rows = unit_rows(random, 40, 8)
    same = np.eye(40, dtype=bool)
    same[0, :20] = True
    similarities = np.where(same, -np.inf, rows @ rows.T)
    expected = np.sort(similarities, axis=1)[:, -NEIGHBOURS:].mean(axis=1)
    np.testing.assert_allclose(hub_means(rows, rows, same), expected, rtol=1e-5)
    assert hub_means(rows[:1], rows, np.ones((1, 40), bool)) == 0


def adapted_rows(vectors: np.ndarray, weight: float) -> AdaptedRows:
    random = np.random.default_rng(5)
    transform = some_transform(random, DIMENSION, DIMENSION)
    means = hub_means(transform.apply(vectors), transform.apply(vectors[:200]), np.zeros((len(vectors), 200), bool))
    offsets = (weight * (means - means.mean())).astype(np.float32)
    return AdaptedRows(Stack([vectors]), transform, RowTerms(transform.scales(vectors), offsets), weight)


@pytest.mark.parametrize("weight", [0.0, WEIGHT])
def test_distance_orders_rows_of_a_file_as_similarity_does(weight):
    vectors, _ = town(40, 5)
    rows = adapted_rows(vectors, weight)
    queries = prepared(vectors[:20], rows.transform, weight)
    in_file, probes = rows.take(np.arange(len(vectors))), rows.probes(np.arange(20))
    np.testing.assert_allclose(probes, queries.probes, atol=1e-6)
    np.testing.assert_allclose(np.linalg.norm(in_file, axis=1), np.linalg.norm(in_file[0]), rtol=1e-4)
    expected = queries.similarities(vectors, rows.terms, unit_norm=True)
    np.testing.assert_allclose(probes @ in_file.T, expected, atol=1e-4)


@pytest.mark.parametrize("kind", INDEX_TYPES)
def test_every_type_finds_the_nearest_adapted_vectors(kind, tmp_path):
    vectors, _ = town(200, 10)
    queries, _ = town(200, 1, seed=0)
    rows = adapted_rows(vectors, WEIGHT)
    codes = Stack([codes_of(vectors)])
    info = build_vector_file(tmp_path / "file", kind, rows, unit_norm=True, codes=codes)
    asked = replace(prepared(queries[:50], rows.transform, WEIGHT), codes=codes_of(queries[:50]))
    found = ApproximateIndex.open(tmp_path / "file", info, unit_norm=True).search(
        asked, 100, vectors.__getitem__, terms=rows.terms
    )
    truth = exact_search(vectors, prepared(queries[:50], rows.transform, WEIGHT), 100, unit_norm=True, terms=rows.terms)
    shared = [len(np.intersect1d(*pair)) for pair in zip(found.rows, truth.rows, strict=True)]
    assert np.mean(shared) >= 95
    assert info.recall_at_100 >= 0.95
