"""Prefetching of images in order, by threads or by processes with shared memory."""

import mmap
import os
import pickle
import signal
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, ThreadPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import closing, contextmanager
from functools import partial
from itertools import islice
from multiprocessing import get_context, parent_process
from threading import Thread
from typing import Any, NamedTuple, Protocol, TypeVar, runtime_checkable

from vpr_dhe.errors import ImageError, WorkerLostError

Name = TypeVar("Name")
Read = TypeVar("Read")
Task = TypeVar("Task")
Result = TypeVar("Result")

# More threads would wait for the GIL.
_MAX_THREADS = 8
# Two batches of eight, independent of the number of threads, because images may have 100 megapixels.
_AHEAD = 16
# Tasks of several images reduce the overhead in the calling process.
_IMAGES_PER_TASK = 4
_TASKS_PER_PROCESS = 2
# Four images of 2000 x 1300 pixels; memory is allocated when it is first written.
_SLOT_BYTES = 32 << 20


@runtime_checkable
class ReadAhead(Protocol):
    """Function that prefetches a bounded number of items in order; an ImageError of `read` is yielded."""

    def __call__(self, read: Callable[[Name], Read], names: Iterable[Name]) -> Generator[Read | ImageError]:
        """Start reading when the first result is requested."""
        ...


def read_ahead(read: Callable[[Name], Read], names: Iterable[Name]) -> Generator[Read | ImageError]:
    """Prefetch by threads, one per core up to eight, because decoders mostly release the GIL."""
    threads = min(_MAX_THREADS, len(os.sched_getaffinity(0)))
    with ThreadPoolExecutor(threads, "reader") as pool:

        def submit(name: Name) -> Future[Read | ImageError]:
            return pool.submit(_read_or_error, read, name)

        yield from _in_order(submit, names, _AHEAD)


@contextmanager
def reading_processes(count: int, modules: Sequence[str]) -> Iterator[ReadAhead]:
    """Make a reader with processes, which are started on demand; it supports one call at a time.

    `read`, names and results must be picklable; large arrays are returned through shared memory. The processes import
    the main module, so scripts need `if __name__ == "__main__"`.

    Args:
        count: number of processes.
        modules: modules that `read` needs, imported once for all processes.

    Raises:
        WorkerLostError: while reading, if one of the processes ends.
    """
    # With a fork server, because forking this process may hang, and spawned processes take seconds to import.
    context = get_context("forkserver")
    context.set_forkserver_preload([__name__, *modules])
    slots = count * _TASKS_PER_PROCESS + 1
    with _shared_memory(slots * _SLOT_BYTES) as (memory, path):
        pool = ProcessPoolExecutor(count, context, _prepare_process, (path, len(memory)))
        try:
            yield partial(_read_by_processes, pool, memory, slots)
        finally:
            pool.shutdown(cancel_futures=True)


def _read_or_error(read: Callable[[Name], Read], name: Name) -> Read | ImageError:
    try:
        return read(name)
    except ImageError as error:
        return error


def _in_order(submit: Callable[[Task], Future[Result]], tasks: Iterable[Task], ahead: int) -> Generator[Result]:
    """Yield results in order, with `ahead` tasks running while the caller uses a result."""
    pending: deque[Future[Result]] = deque()
    try:
        for task in tasks:
            pending.append(submit(task))
            if len(pending) > ahead:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
    finally:
        # Running tasks may write to shared memory that the next call uses.
        wait([future for future in pending if not future.cancel()])


class _Answer(NamedTuple):
    """Pickled results, and the ranges (start, end) of their arrays in shared memory."""

    pickled: bytes
    ranges: tuple[tuple[int, int], ...]


def _read_by_processes(
    pool: ProcessPoolExecutor,
    memory: mmap.mmap,
    slots: int,
    read: Callable[[Name], Read],
    names: Iterable[Name],
) -> Generator[Read | ImageError]:
    def submit(task: tuple[int, Sequence[Name]]) -> Future[_Answer]:
        number, group = task
        with _without_interruptions():
            return pool.submit(_read_group, read, group, _SLOT_BYTES * (number % slots))

    # One less than the number of slots, because the result in use occupies one.
    tasks = enumerate(_groups(names, _IMAGES_PER_TASK))
    try:
        with closing(_in_order(submit, tasks, slots - 1)) as answers:
            for answer in answers:
                yield from _unpacked(answer, memory)
    except BrokenProcessPool as error:
        raise WorkerLostError(
            "a process that reads images ended unexpectedly, perhaps out of memory; use fewer of them, or none"
        ) from error


def _groups(names: Iterable[Name], length: int) -> Iterator[list[Name]]:
    left = iter(names)
    while group := list(islice(left, length)):
        yield group


def _unpacked(answer: _Answer, memory: mmap.mmap) -> Sequence[Any]:
    # Copied, because the slot will be reused.
    with memoryview(memory) as view:
        arrays = [bytearray(view[start:end]) for start, end in answer.ranges]
    return pickle.loads(answer.pickled, buffers=arrays)


@contextmanager
def _shared_memory(length: int) -> Iterator[tuple[mmap.mmap, str]]:
    """Anonymous memory and a path for opening it; unlike /dev/shm, containers do not limit it to a few MB."""
    descriptor = os.memfd_create("vpr-dhe images")
    try:
        os.ftruncate(descriptor, length)
        with mmap.mmap(descriptor, length) as memory:
            yield memory, f"/proc/{os.getpid()}/fd/{descriptor}"
    finally:
        os.close(descriptor)


@contextmanager
def _without_interruptions() -> Iterator[None]:
    """Block Ctrl-C in processes started meanwhile; this process handles it and ends them."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


# The rest runs in the reading processes.

_memory: mmap.mmap


def _prepare_process(path: str, length: int) -> None:
    global _memory  # noqa: PLW0603 (the only way to pass on what an initializer prepares)
    with open(path, "r+b") as file:  # noqa: PTH123 (a path of /proc)
        _memory = mmap.mmap(file.fileno(), length)
    Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """Exit when the parent process is killed."""
    parent = parent_process()
    assert parent is not None, "started by multiprocessing"
    parent.join()
    os._exit(1)


def _read_group(read: Callable[[Name], Read], names: Sequence[Name], slot: int) -> _Answer:
    ranges: list[tuple[int, int]] = []

    def stays_in_pickle(buffer: pickle.PickleBuffer) -> bool:
        with buffer.raw() as raw:
            start = ranges[-1][1] if ranges else slot
            end = start + raw.nbytes
            if end > slot + _SLOT_BYTES:
                return True
            _memory[start:end] = raw
            ranges.append((start, end))
            return False

    results = [_read_or_error(read, name) for name in names]
    return _Answer(pickle.dumps(results, protocol=5, buffer_callback=stays_in_pickle), tuple(ranges))
