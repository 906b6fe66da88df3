"""Batches in order, prepared by the training process itself or by others ahead of it."""

import pickle
import signal
from collections.abc import Iterator
from functools import cached_property
from typing import TypeVar

import cv2
import torch
from torch.utils.data import DataLoader, Dataset

from vpr_dhe.training.stage import Batches, Turn

Batch = TypeVar("Batch")


class _Turns(Dataset):
    """The batches of one process by step, in a loading process.

    The batches travel as bytes: torch would move their tensors to shared memory, which ends the process where a tensor
    lies in a mapped file.
    """

    def __init__(self, batches: Batches, process: int, processes: int) -> None:
        self._pickled, self._process, self._processes = pickle.dumps(batches), process, processes

    @cached_property
    def _batches(self) -> Batches:
        return pickle.loads(self._pickled)

    def __getitem__(self, step: int) -> object:
        return self._batches.batch(Turn(step, self._process, self._processes))


def load_batches(batches: Batches[Batch], steps: range, process: int, processes: int, workers: int) -> Iterator[Batch]:
    """The batches of these steps, in order, whichever worker prepares them."""
    if workers == 0:
        return (batches.batch(Turn(step, process, processes)) for step in steps)
    return iter(
        DataLoader(
            _Turns(batches, process, processes),
            batch_size=None,
            sampler=steps,
            num_workers=workers,
            collate_fn=_as_it_is,
            worker_init_fn=_prepare_worker,
            # "spawn", because forking after OpenCV or torch started their threads can hang.
            multiprocessing_context="spawn",
        )
    )


def _as_it_is(batch: Batch) -> Batch:
    return batch


def _prepare_worker(_: int) -> None:
    """One thread each; who presses Ctrl-C means the training process, which ends its workers."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    cv2.setNumThreads(1)
    torch.set_num_threads(1)
