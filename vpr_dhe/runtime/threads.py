"""Parallel work on many candidates, in threads that use one core each."""

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from itertools import pairwise
from math import prod
from threading import Barrier, Lock, local
from typing import TypeVar

import torch
from torch import Tensor

Part = TypeVar("Part")
Result = TypeVar("Result")

# Enough parts that no thread waits long for the last one.
_GROUPS_PER_THREAD = 4
_MAX_SCRATCH_BYTES = 1 << 24
_this_thread = local()
# Keeps two threads from making the same pool.
_pool_lock = Lock()


def in_parallel(work: Callable[[Part], Result], parts: Sequence[Part]) -> list[Result]:
    """Map work over parts in as many threads as torch uses, and return the results in order.

    Meant for work that mostly releases the GIL: torch, NumPy and OpenCV on arrays. This is faster than a Python loop
    over operations that torch parallelises, which synchronises cores after each operation.
    """
    threads = torch.get_num_threads()
    if len(parts) < 2 or has_one_core():
        return [work(part) for part in parts]
    groups = split_evenly(parts, min(len(parts), threads * _GROUPS_PER_THREAD))
    done = _threads().map(lambda group: [work(part) for part in group], groups)
    return [result for results in done for result in results]


def split_evenly(items: Sequence[Part], count: int) -> list[Sequence[Part]]:
    """Split items into `count` runs whose lengths differ by at most one."""
    return [items[first:end] for first, end in pairwise(len(items) * number // count for number in range(count + 1))]


def on_one_core(work: Callable[[Part], Result], part: Part) -> Result:
    """Run small work on one core, which is faster than torch's threads while other threads use the cores."""
    return work(part) if has_one_core() else _threads().submit(work, part).result()


class ScratchMemory(local):
    """Memory that each thread reuses for temporary results of up to 16 MB.

    Page faults of newly allocated memory may take longer than the product that is written to it.
    """

    _memory: Tensor | None = None

    def tensor(self, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        """Return an uninitialised tensor in the memory of this thread, which the next call reuses."""
        needed = prod(shape) * dtype.itemsize
        if needed > _MAX_SCRATCH_BYTES:
            return torch.empty(shape, dtype=dtype)
        if self._memory is None or len(self._memory) < needed:
            self._memory = None
            with torch.inference_mode(mode=False):  # inference tensors could not be written in other modes
                self._memory = torch.empty(needed, dtype=torch.uint8)
        return self._memory[:needed].view(dtype).view(shape)


def has_one_core() -> bool:
    """Whether this thread may use one core alone."""
    # Pool threads count as one core, because waiting for their own pool could deadlock.
    return torch.get_num_threads() == 1 or getattr(_this_thread, "is_shared", False)


def _threads() -> ThreadPoolExecutor:
    with _pool_lock:
        return _pool(os.getpid(), torch.get_num_threads())


@lru_cache(maxsize=4)
def _pool(process: int, threads: int) -> ThreadPoolExecutor:  # noqa: ARG001 (threads do not survive a fork)
    """Make a pool of threads in which torch uses one thread, without affecting other threads."""
    everyone = Barrier(threads + 1)

    def begin() -> None:
        _this_thread.is_shared = True
        # A thread adopts torch's global number of threads on first use, and keeps its own setting afterwards. Setting
        # it also changes the global number, which the last line below restores.
        torch.get_num_threads()
        torch.set_num_threads(1)
        everyone.wait()

    pool = ThreadPoolExecutor(threads, thread_name_prefix="candidates", initializer=begin)
    for _ in range(threads):
        pool.submit(int)
    everyone.wait()
    torch.set_num_threads(threads)
    return pool
