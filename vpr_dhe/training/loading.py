"""Loading of batches in order, by the training process or by worker processes."""

import pickle
import signal
from collections.abc import Iterator
from functools import cached_property
from typing import TypeVar

import cv2
import torch
from torch.utils.data import DataLoader, Dataset

from vpr_dhe.errors import VprDheError
from vpr_dhe.training.stage import Batches, Turn

Batch = TypeVar("Batch")


class _Turns(Dataset):
    """Dataset of the batches of one process by step, for worker processes.

    Batches are sent as bytes: torch would move their tensors to shared memory, which kills the process if a tensor is
    in a memory-mapped file.
    """

    def __init__(self, batches: Batches, process: int, processes: int) -> None:
        self._pickled, self._process, self._processes = pickle.dumps(batches), process, processes

    @cached_property
    def _batches(self) -> Batches:
        return pickle.loads(self._pickled)

    def __getitem__(self, step: int) -> object:
        """Batch of a step, or the error of a user's mistake, whose message torch would replace by a traceback."""
        try:
            return self._batches.batch(Turn(step, self._process, self._processes))
        except VprDheError as error:
            return error


def load_batches(batches: Batches[Batch], steps: range, process: int, processes: int, workers: int) -> Iterator[Batch]:
    """Yield the batches of these steps in order, prepared by any worker."""
    if workers == 0:
        return (batches.batch(Turn(step, process, processes)) for step in steps)
    loader = DataLoader(
        _Turns(batches, process, processes),
        batch_size=None,
        sampler=steps,
        num_workers=workers,
        collate_fn=_identity,
        worker_init_fn=_prepare_worker,
        # "spawn", because forking after OpenCV or torch started their threads can hang.
        multiprocessing_context="spawn",
    )
    return map(_raised, loader)


def _raised(batch: Batch | VprDheError) -> Batch:
    if isinstance(batch, VprDheError):
        raise batch
    return batch


def _identity(batch: Batch) -> Batch:
    return batch


def _prepare_worker(_: int) -> None:
    """Limit a worker to one thread and ignore Ctrl-C, which the training process handles."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    cv2.setNumThreads(1)
    torch.set_num_threads(1)
