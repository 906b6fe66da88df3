"""The network: two branches that share what they should, and a loss that pulls and pushes."""

import pytest
import torch

from vpr_dhe.verification.estimators.cross_modal.weak_alignment.network import (
    below_margin,
    mean_where,
    new_network,
    squared_distances,
)


def some_patches(count=4):
    return torch.randn(count, 3, 16, 16, generator=torch.Generator().manual_seed(0))


def test_a_siamese_network_describes_both_images_alike():
    patches = some_patches()
    a, b = new_network(0, pseudo_siamese=False)(patches, patches)
    assert a.shape == (4, 256)
    assert torch.equal(a, b)


def test_a_pseudo_siamese_network_shares_all_but_the_first_layer():
    network = new_network(0, pseudo_siamese=True)
    patches = some_patches()
    a, b = network(patches, patches)
    assert not torch.allclose(a, b, atol=1e-3)
    network.first_b.load_state_dict(network.first_a.state_dict())
    a, b = network(patches, patches)
    assert torch.allclose(a, b, atol=1e-6)
    siamese = sum(value.numel() for value in new_network(0, pseudo_siamese=False).parameters())
    assert sum(value.numel() for value in network.parameters()) - siamese == 32 * (3 * 25 + 1)


def test_it_is_the_published_network():
    names = {name: tuple(value.shape) for name, value in new_network(0, pseudo_siamese=False).named_parameters()}
    assert sorted(names.values()) == sorted([(32, 3, 5, 5), (32,), (64, 32, 3, 3), (64,), (256, 1024), (256,)])


def test_weights_follow_from_the_seed_and_leave_the_callers_random_state():
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    first, again, other = (new_network(seed, pseudo_siamese=True) for seed in (1, 1, 2))
    assert torch.equal(torch.rand(2), expected)
    assert torch.equal(first.first_a.weight, again.first_a.weight)
    assert not torch.equal(first.first_a.weight, other.first_a.weight)


def test_the_margin_asks_for_nothing_more_than_its_distance():
    a = torch.zeros(3, 2)
    b = torch.tensor([[0.0, 0.0], [0.3, 0.4], [3.0, 4.0]])
    squares = squared_distances(a, b)
    assert squares.tolist() == pytest.approx([0, 0.25, 25])
    assert below_margin(squares, 1.0).tolist() == pytest.approx([1, 0.25, 0], abs=1e-3)
    together = torch.zeros(1, requires_grad=True)
    below_margin(together, 1.0).sum().backward()
    assert torch.isfinite(together.grad).all()


def test_a_mean_over_nothing_is_nothing():
    values = torch.tensor([1.0, 3.0])
    assert mean_where(values, torch.tensor([False, True])) == 3
    assert mean_where(values, torch.tensor([False, False])) == 0
