"""Transfer of batches between devices."""

from typing import Any, TypeVar

import torch

Batch = TypeVar("Batch")


def to_device(batch: Batch, device: torch.device) -> Batch:
    """Move all tensors of nested named tuples to a device; tensors already there are not copied."""
    from accelerate.utils import send_to_device

    moved: Any = send_to_device(batch, device)
    return moved
