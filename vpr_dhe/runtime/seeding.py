"""Context in which torch draws from a seed, without an effect on draws outside."""

from collections.abc import Iterator
from contextlib import contextmanager
from threading import RLock

import torch

# Torch's global generators, which all threads share. Reentrant, so that contexts can be nested.
_lock = RLock()


@contextmanager
def seeded(seed: int, device: torch.device | None = None) -> Iterator[None]:
    """Seed torch's global generators of the CPU and of `device`, and restore their states afterwards.

    One thread at a time is in the context. Generators of other GPUs, which `torch.manual_seed` resets, are left alone.
    """
    with _lock:
        generators = _global_generators(device)
        states = [generator.get_state() for generator in generators]
        for generator in generators:
            generator.manual_seed(seed)
        try:
            yield
        finally:
            for generator, state in zip(generators, states, strict=True):
                generator.set_state(state)


def _global_generators(device: torch.device | None) -> list[torch.Generator]:
    if device is None or device.type != "cuda":
        return [torch.default_generator]
    torch.cuda.init()
    number = torch.cuda.current_device() if device.index is None else device.index
    return [torch.default_generator, torch.cuda.default_generators[number]]
