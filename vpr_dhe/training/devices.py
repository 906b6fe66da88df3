"""Batches from one device to another."""

from typing import Any, TypeVar

import torch

Batch = TypeVar("Batch")


def to_device(batch: Batch, device: torch.device) -> Batch:
    """Move every tensor of nested named tuples; what is on the device already is not copied."""
    from accelerate.utils import send_to_device

    moved: Any = send_to_device(batch, device)
    return moved
