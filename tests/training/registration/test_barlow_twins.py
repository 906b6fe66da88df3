"""Barlow Twins against the formula written out in numpy, and what its extremes are."""

import numpy as np
import pytest
import torch

from vpr_dhe.training.registration.barlow_twins import barlow_twins


def by_formula(a, b):
    def standardised(values):
        return (values - values.mean(axis=0)) / values.std(axis=0, ddof=1)

    correlation = standardised(a).T @ standardised(b) / (len(a) - 1)
    diagonal = np.diag(correlation)
    return ((diagonal - 1) ** 2).sum() + 0.005 * ((correlation**2).sum() - (diagonal**2).sum())


def samples(*shape, seed=0):
    return torch.from_numpy(np.random.default_rng(seed).normal(2, 3, shape))


def test_it_is_the_formula_for_each_set():
    a, b = samples(3, 20, 5), samples(3, 20, 5, seed=1)
    found = barlow_twins(a, b)
    for number in range(3):
        assert float(found[number]) == pytest.approx(by_formula(a[number].numpy(), b[number].numpy()), rel=1e-4)


def test_samples_that_do_not_count_change_nothing():
    a, b = samples(2, 20, 5), samples(2, 20, 5, seed=1)
    counted = torch.rand(2, 20, generator=torch.Generator().manual_seed(0)) < 0.6
    found = barlow_twins(a, b, counted)
    spoiled = torch.where(counted.unsqueeze(2), a, 1e3)
    torch.testing.assert_close(barlow_twins(spoiled, b, counted), found)
    for number, chosen in enumerate(counted.numpy()):
        expected = by_formula(a[number].numpy()[chosen], b[number].numpy()[chosen])
        assert float(found[number]) == pytest.approx(expected, rel=1e-4)


def test_equal_and_independent_channels_cost_nothing_and_constants_cost_all():
    independent = torch.linalg.qr(samples(1, 40, 6) - samples(1, 40, 6).mean(dim=1, keepdim=True)).Q
    assert barlow_twins(independent, independent).item() == pytest.approx(0, abs=1e-4)
    assert barlow_twins(torch.ones(1, 40, 6), torch.ones(1, 40, 6)).item() == pytest.approx(6)


def test_fewer_than_two_samples_cost_nothing_and_gradients_stay_finite():
    a, b = samples(1, 4, 3).requires_grad_(), samples(1, 4, 3, seed=1)
    for counted in ([1, 0, 0, 0], [0, 0, 0, 0]):
        loss = barlow_twins(a, b, torch.tensor([counted]).bool())
        assert loss.item() == 0
        loss.sum().backward()
        assert torch.isfinite(a.grad).all()
