"""Sharing out work among threads."""

import threading

import pytest
import torch

from vpr_dhe.geometry.matching import mutual_nearest_neighbours
from vpr_dhe.runtime.threads import in_parallel, on_one_core


@pytest.mark.parametrize("count", [0, 1, 2, 7, 100])
def test_results_come_in_the_order_of_the_parts(threads, count):
    assert in_parallel(lambda part: part * part, range(count)) == [part * part for part in range(count)]


def test_torch_uses_one_thread_in_each_and_as_many_as_before_elsewhere(threads):
    assert in_parallel(lambda _: torch.get_num_threads(), range(20)) == [1] * 20
    assert torch.get_num_threads() == threads
    begun_later: list[int] = []
    other = threading.Thread(target=lambda: begun_later.append(torch.get_num_threads()))
    other.start()
    other.join()
    assert begun_later == [threads]


def test_small_work_has_one_core_and_may_come_from_shared_work(threads):
    assert on_one_core(lambda part: (part, torch.get_num_threads()), 5) == (5, 1)
    assert in_parallel(lambda part: on_one_core(lambda inner: inner + 1, part), range(9)) == list(range(1, 10))
    assert torch.get_num_threads() == threads


def test_matches_are_the_same_on_any_number_of_threads(threads):
    generator = torch.Generator().manual_seed(0)
    query, maps = torch.randn(50, 16, generator=generator), torch.randn(21, 50, 16, generator=generator)
    found = mutual_nearest_neighbours(query, maps)
    for candidate in range(21):
        alone = mutual_nearest_neighbours(query, maps[candidate : candidate + 1])
        assert torch.equal(found.index[candidate], alone.index[0])
        assert torch.equal(found.mutual[candidate], alone.mutual[0])


def test_work_within_work_ends(threads):
    assert in_parallel(lambda part: sum(in_parallel(lambda inner: inner, range(part))), range(6)) == [0, 0, 1, 3, 6, 10]


def test_an_error_reaches_the_caller_and_the_threads_stay_usable(threads):
    def refuse(part: int) -> int:
        if part == 5:
            raise ValueError("five")
        return part

    with pytest.raises(ValueError, match="five"):
        in_parallel(refuse, range(9))
    assert in_parallel(refuse, range(4)) == [0, 1, 2, 3]
