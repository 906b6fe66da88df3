"""Work on many candidates at once: parts shared out among threads that each use one core and memory of their own."""

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

# So many groups of parts for each thread that none waits long for the last.
_GROUPS_PER_THREAD = 4
_MAX_KEPT_BYTES = 1 << 24
_this_thread = local()
# Whoever asks for a pool that is being made waits for it, and makes no second one.
_making = Lock()


def in_parallel(work: Callable[[Part], Result], parts: Sequence[Part]) -> list[Result]:
    """Do the same work on all parts, on as many threads as torch has here, and give the results in their order.

    For work that leaves Python's lock alone most of the time: torch, NumPy and OpenCV on arrays. Between threads of
    torch's own, which share out each operation, and a loop in Python, cores would wait after every step.
    """
    threads = torch.get_num_threads()
    if len(parts) < 2 or _has_one_core():
        return [work(part) for part in parts]
    groups = evenly(parts, min(len(parts), threads * _GROUPS_PER_THREAD))
    done = _threads().map(lambda group: [work(part) for part in group], groups)
    return [result for results in done for result in results]


def evenly(items: Sequence[Part], count: int) -> list[Sequence[Part]]:
    """So many runs of items, in order, none longer than another by more than one."""
    return [items[first:end] for first, end in pairwise(len(items) * number // count for number in range(count + 1))]


def on_one_core(work: Callable[[Part], Result], part: Part) -> Result:
    """Do work that is too small to be shared out, while other threads keep the cores busy.

    Where torch shares out its operations, each waits until the last of its threads has had a core.
    """
    return work(part) if _has_one_core() else _threads().submit(work, part).result()


class KeptMemory(local):
    """Memory that each thread keeps for results that it uses up before it makes the next ones.

    New memory may come from the system page by page, in several times the time of a product that is written to it.
    What takes more than 16 MB is not kept.
    """

    _memory: Tensor | None = None

    def room(self, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        """Room for a tensor, where this thread's last one was."""
        needed = prod(shape) * dtype.itemsize
        if needed > _MAX_KEPT_BYTES:
            return torch.empty(shape, dtype=dtype)
        if self._memory is None or len(self._memory) < needed:
            self._memory = None
            with torch.inference_mode(mode=False):  # or it could not be written to in any other mode
                self._memory = torch.empty(needed, dtype=torch.uint8)
        return self._memory[:needed].view(dtype).view(shape)


def _has_one_core() -> bool:
    # A thread that waited for others of its pool could wait for ever.
    return torch.get_num_threads() == 1 or getattr(_this_thread, "is_shared", False)


def _threads() -> ThreadPoolExecutor:
    with _making:
        return _pool(os.getpid(), torch.get_num_threads())


@lru_cache(maxsize=4)
def _pool(process: int, threads: int) -> ThreadPoolExecutor:  # noqa: ARG001 (threads do not survive a fork)
    """Threads in which torch uses one thread; everywhere else it goes on as before."""
    everyone = Barrier(threads + 1)

    def begin() -> None:
        _this_thread.is_shared = True
        # A thread takes over the number for all when it first asks, and keeps what it sets after that. Those that are
        # begun later would take it over too, if the last line below did not undo it.
        torch.get_num_threads()
        torch.set_num_threads(1)
        everyone.wait()

    pool = ThreadPoolExecutor(threads, thread_name_prefix="candidates", initializer=begin)
    for _ in range(threads):
        pool.submit(int)
    everyone.wait()
    torch.set_num_threads(threads)
    return pool
