"""Context without TF32 on GPUs, which rounds the factors of products to 10 bits of mantissa.

Torch allows TF32 in convolutions by default. The setting is process-wide, so it is changed only during a forward pass.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from threading import Lock
from typing import Any

import torch

_EXACT = "ieee"


class _Switch:
    """Number of threads in the context, and the settings before the first of them."""

    def __init__(self) -> None:
        self._lock, self._inside, self._before = Lock(), 0, list[Any]()

    def off(self) -> None:
        with self._lock:
            if self._inside == 0:
                self._before = [getattr(holder, name) for holder, name in _settings()]
                _set([_EXACT if isinstance(value, str) else False for value in self._before])
            self._inside += 1

    def restore(self) -> None:
        with self._lock:
            self._inside -= 1
            if self._inside == 0:
                _set(self._before)


_switch = _Switch()


@contextmanager
def without_tf32(device: torch.device) -> Iterator[None]:
    """Multiply in full single precision on a GPU; no effect on other devices.

    Several threads may be in the context: the first one disables TF32, the last one restores the settings.
    """
    if device.type != "cuda":
        yield
        return
    _switch.off()
    try:
        yield
    finally:
        _switch.restore()


def _set(values: list[Any]) -> None:
    for (holder, name), value in zip(_settings(), values, strict=True):
        setattr(holder, name, value)


def _settings() -> list[tuple[Any, str]]:
    """Settings that allow TF32 in torch: by operator since 2.9, where reading the older flags may fail."""
    cudnn, matmul = torch.backends.cudnn, torch.backends.cuda.matmul
    if hasattr(cudnn, "conv"):
        return [(operator, "fp32_precision") for operator in (cudnn.conv, cudnn.rnn, matmul)]
    return [(cudnn, "allow_tf32"), (matmul, "allow_tf32")]
