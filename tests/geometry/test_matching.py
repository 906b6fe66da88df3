"""Mutual nearest neighbours and correlation against loops written from their definitions."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.functional import normalize

from vpr_dhe.features.base import ExtractorSpec
from vpr_dhe.geometry import matching
from vpr_dhe.geometry.matching import _candidates_per_task, match_in_parts, mutual_nearest_neighbours
from vpr_dhe.records import Grid, Size
from vpr_dhe.runtime.cpu_features import has_integer_products
from vpr_dhe.verification.estimators.base import matches_of_cells


def random_maps(seed: int, *shape: int) -> torch.Tensor:
    return normalize(torch.randn(*shape, generator=torch.Generator().manual_seed(seed)), dim=-1)


@given(st.integers(0, 10_000), st.integers(1, 5), st.integers(1, 30), st.integers(1, 30))
@settings(max_examples=40)
def test_agrees_with_the_definition(seed, candidates, query_cells, cells):
    query, maps = random_maps(seed, query_cells, 8), random_maps(seed + 1, candidates, cells, 8)
    found = mutual_nearest_neighbours(query, maps)
    for candidate in range(candidates):
        similarity = query.numpy() @ maps[candidate].numpy().T
        for cell in range(query_cells):
            nearest = int(np.argmax(similarity[cell]))
            is_mutual = int(np.argmax(similarity[:, nearest])) == cell and similarity[cell, nearest] > 0
            assert int(found.index[candidate, cell]) == nearest
            assert bool(found.mutual[candidate, cell]) == is_mutual


def test_finds_a_permutation():
    query = random_maps(0, 576, 64)
    order = torch.randperm(576, generator=torch.Generator().manual_seed(3))
    found = mutual_nearest_neighbours(query, query[order][None])
    assert found.mutual.all()
    assert torch.equal(order[found.index[0]], torch.arange(576))
    torch.testing.assert_close(found.similarity, torch.ones(1, 576))


def test_many_candidates_equal_one_at_a_time():
    query, maps = random_maps(1, 576, 16), random_maps(2, 40, 576, 16)
    together = mutual_nearest_neighbours(query, maps)
    for candidate in (0, 17, 39):
        alone = mutual_nearest_neighbours(query, maps[candidate : candidate + 1])
        assert torch.equal(together.index[candidate], alone.index[0])
        assert torch.equal(together.mutual[candidate], alone.mutual[0])


def test_matches_stay_one_to_one_where_descriptors_are_equal():
    query = normalize(torch.ones(50, 8), dim=-1)
    found = mutual_nearest_neighbours(query, query[None])
    matched = found.index[0][found.mutual[0]]
    assert len(matched) == len(matched.unique()) == 1


def test_silent_cells_are_matched_with_nobody():
    query = random_maps(5, 10, 8)
    query[4] = 0
    found = mutual_nearest_neighbours(query, query[None])
    assert found.mutual[0].tolist() == [cell != 4 for cell in range(10)]


@pytest.mark.skipif(not has_integer_products(torch.device("cpu")), reason="this processor has no 8-bit products")
def test_eight_bits_find_the_same_neighbours_but_for_near_ties():
    query, maps = random_maps(7, 300, 65), random_maps(8, 9, 300, 65)
    maps[3] = query[torch.randperm(300, generator=torch.Generator().manual_seed(1))]
    exact = mutual_nearest_neighbours(query, maps)
    coarse = match_in_parts(query, 9, maps.__getitem__, eight_bits=True)
    own = torch.arange(300)
    assert (exact.index == coarse.index).float().mean() > 0.9
    assert torch.equal(exact.index[3], coarse.index[3])
    assert coarse.mutual[3].all()
    torch.testing.assert_close(coarse.similarity, exact.similarity, rtol=0, atol=0.02)
    lost = exact.similarity - (query * maps[torch.arange(9)[:, None], coarse.index]).sum(dim=2)
    assert lost[:, own].max() < 0.02


@pytest.mark.skipif(not has_integer_products(torch.device("cpu")), reason="this processor has no 8-bit products")
@pytest.mark.parametrize("dimension", [65, 1041])
def test_processors_without_products_of_integers_find_the_same_matches(dimension, monkeypatch):
    query = normalize(torch.randn(48, dimension), dim=1)
    maps = normalize(query + 0.5 * torch.randn(5, 48, dimension), dim=2)
    expected = match_in_parts(query, 5, maps.__getitem__, eight_bits=True)
    monkeypatch.setattr("vpr_dhe.geometry.matching.has_integer_products", lambda _: False)

    found = match_in_parts(query, 5, maps.__getitem__, eight_bits=True)

    assert expected.mutual.any()
    for column in ("index", "mutual", "similarity"):
        assert torch.equal(getattr(found, column), getattr(expected, column))


@pytest.mark.parametrize("eight_bits", [False, True])
def test_no_candidate_depends_on_those_beside_it(eight_bits):
    query, maps = random_maps(5, 40, 16), random_maps(6, 7, 40, 16)
    maps[2, 0] = 0
    maps[2, 0, 3] = 1  # a peak that no other map has
    together = match_in_parts(query, 7, maps.__getitem__, eight_bits=eight_bits)
    for candidate in range(7):
        alone = match_in_parts(query, 1, maps[candidate : candidate + 1].__getitem__, eight_bits=eight_bits)
        assert torch.equal(together.index[candidate], alone.index[0])
        assert torch.equal(together.mutual[candidate], alone.mutual[0])
        torch.testing.assert_close(together.similarity[candidate], alone.similarity[0], rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("eight_bits", [False, True])
def test_silent_cells_stay_silent_in_parts(eight_bits):
    query, maps = random_maps(5, 40, 16), random_maps(6, 7, 40, 16)
    query[4], maps[:, 9] = 0, 0
    found = match_in_parts(query, 7, maps.__getitem__, eight_bits=eight_bits)
    assert not found.mutual[:, 4].any()
    assert not ((found.index == 9) & found.mutual).any()
    assert found.mutual.any(dim=1).all()


@pytest.mark.parametrize("eight_bits", [False, True])
def test_empty_cells_of_large_maps_change_nothing(eight_bits, monkeypatch):
    """Also for cells that have no positive product, whose nearest cell is an empty one."""
    query, maps = random_maps(5, 80, 6), random_maps(6, 4, 90, 6)
    query[10:50], maps[0, ::2], maps[1, 0], maps[3] = 0, 0, 0, 0
    query[3] = -maps[0, 1]
    maps[0, 3:] = torch.where(maps[0, 3:] @ query[3] > 0, -maps[0, 3:].T, maps[0, 3:].T).T
    expected = match_in_parts(query, 4, maps.__getitem__, eight_bits=eight_bits)
    monkeypatch.setattr(matching, "_LARGE_MAP", 1)
    found = match_in_parts(query, 4, maps.__getitem__, eight_bits=eight_bits)
    assert torch.equal(found.index, expected.index)
    assert torch.equal(found.mutual, expected.mutual)
    torch.testing.assert_close(found.similarity, expected.similarity, rtol=1e-6, atol=1e-6)
    assert found.similarity[0, 3] == 0


@pytest.mark.parametrize("eight_bits", [False, True])
def test_maps_may_be_matched_in_any_mode(threads, eight_bits):
    query, maps = random_maps(5, 40, 16), random_maps(6, 7, 40, 16)
    larger = random_maps(7, 7, 90, 16)
    expected = match_in_parts(query, 7, maps.__getitem__, eight_bits=eight_bits)
    with torch.inference_mode():
        match_in_parts(query, 7, larger.__getitem__, eight_bits=eight_bits)
    again = match_in_parts(query, 7, maps.__getitem__, eight_bits=eight_bits)
    assert torch.equal(again.index, expected.index)
    assert torch.equal(again.similarity, expected.similarity)


def test_matches_of_descriptors_that_are_learned_take_no_gradient():
    query, maps = random_maps(5, 40, 16).requires_grad_(), random_maps(6, 7, 40, 16).requires_grad_()
    found = mutual_nearest_neighbours(query, maps)
    assert not found.similarity.requires_grad
    assert torch.equal(found.index, mutual_nearest_neighbours(query.detach(), maps.detach()).index)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_matches_of_other_precisions_are_those_of_single_precision(dtype):
    spec = ExtractorSpec("test", "none", 4, 16, Grid(5, 8), Size(80, 50), unit_norm=True, tolerance_cells=3.0)
    query, maps = random_maps(5, 40, 16), random_maps(6, 3, 40, 16)
    found = matches_of_cells(lambda: mutual_nearest_neighbours(query.to(dtype), maps.to(dtype)), spec)(1)
    expected = matches_of_cells(lambda: mutual_nearest_neighbours(query, maps), spec)(1)
    assert found.similarity.dtype == torch.float32
    assert abs(len(found.similarity) - len(expected.similarity)) < 4


def test_no_candidates_are_matched_with_nobody():
    found = mutual_nearest_neighbours(random_maps(0, 5, 4), torch.empty(0, 6, 4))
    assert found.index.shape == found.mutual.shape == found.similarity.shape == (0, 5)


def test_a_gpu_multiplies_as_many_candidates_at_once_as_its_memory_holds():
    gpu = torch.device("cuda")
    assert _candidates_per_task(100, 576, gpu) == 100
    assert _candidates_per_task(100, 7921, gpu) == 4
    assert _candidates_per_task(0, 576, gpu) == _candidates_per_task(5, 100_000, gpu) == 1
