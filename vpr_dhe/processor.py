"""What a device multiplies fastest, where that is less than single precision."""

from functools import cache

import torch


@cache
def has_integer_products(device: torch.device) -> bool:
    """Whether torch multiplies 8-bit integers by instructions made for it; others may be slow, or saturate."""
    return device.type == "cpu" and hasattr(torch.ops.aten, "_int_mm") and _cpu_has("_is_vnni_supported")


@cache
def has_integer_linear_layers(device: torch.device) -> bool:
    """Whether torch also has linear layers of 8-bit integers, of which it says little and may change its mind."""
    return has_integer_products(device) and hasattr(torch.ops.onednn, "qlinear_pointwise")


@cache
def has_bfloat16_products(device: torch.device) -> bool:
    """Whether products in bfloat16 are faster than in single precision."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return device.type == "cpu" and (_cpu_has("_is_avx512_bf16_supported") or _cpu_has("_is_amx_tile_supported"))


def _cpu_has(question: str) -> bool:
    """Ask what torch keeps to itself, and differently named in some versions."""
    answer = getattr(torch.cpu, question, None)
    return answer is not None and bool(answer())
