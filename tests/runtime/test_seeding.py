"""Draws from a seed, which leave other draws as they are."""

from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from vpr_dhe.runtime.seeding import seeded


def drawn(seed: int) -> list[float]:
    with seeded(seed):
        return torch.rand(3).tolist()


def test_the_seed_alone_decides_and_later_draws_are_as_without():
    torch.manual_seed(5)
    without = torch.rand(2).tolist()
    torch.manual_seed(5)
    first, again = drawn(1), drawn(1)
    assert first == again != drawn(2)
    assert torch.rand(2).tolist() == without


def test_contexts_nest_and_end_with_an_error():
    state = torch.get_rng_state()
    with seeded(1):
        inner = drawn(2)
        with pytest.raises(RuntimeError, match="negative dimension"), seeded(3):
            torch.rand(-1)
        outer = torch.rand(3).tolist()
    assert inner == drawn(2)
    assert outer == drawn(1)
    assert torch.equal(torch.get_rng_state(), state)


def test_threads_draw_one_after_the_other():
    with ThreadPoolExecutor(4) as threads:
        assert len({tuple(values) for values in threads.map(drawn, [3] * 200)}) == 1


def test_generators_of_gpus_are_left_alone(monkeypatch):
    touched: list[int] = []
    monkeypatch.setattr(torch.cuda, "manual_seed_all", touched.append)
    drawn(1)
    assert not touched


@pytest.mark.gpu
def test_the_generator_of_a_gpu_is_seeded_and_restored():
    device = torch.device("cuda")
    state = torch.cuda.get_rng_state(device)
    with seeded(1, device):
        first = torch.rand(3, device=device)
    with seeded(1, device):
        assert torch.equal(torch.rand(3, device=device), first)
    assert torch.equal(torch.cuda.get_rng_state(device), state)
