"""Transfer of batches between devices."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import torch

Batch = TypeVar("Batch")


@contextmanager
def in_single_precision() -> Iterator[None]:
    """Context without the lower precision of autocast, for losses that need more than eight bits of a product."""
    with torch.autocast("cpu", enabled=False), torch.autocast("cuda", enabled=False):
        yield


def to_device(batch: Batch, device: torch.device) -> Batch:
    """Move all tensors of nested named tuples to a device; tensors already there are not copied."""
    from accelerate.utils import send_to_device

    moved: Any = send_to_device(batch, device)
    return moved
