"""Detection of fast products in reduced precision."""

from functools import cache

import torch
from jaxtyping import Float, Int8, UInt8
from torch import Tensor


@cache
def has_integer_products(device: torch.device) -> bool:
    """Whether torch multiplies 8-bit integers with VNNI instructions; other implementations may be slow or saturate."""
    return device.type == "cpu" and hasattr(torch.ops.aten, "_int_mm") and _cpu_has("_is_vnni_supported")


@cache
def has_integer_linear_layers(device: torch.device) -> bool:
    """Whether torch also has linear layers of 8-bit integers, as in `integer_linear_layer`.

    Their interface is undocumented and may change, so it is tested by an example.
    """
    if not has_integer_products(device):
        return False
    rows, weight = torch.tensor([[3, 200]], dtype=torch.uint8), torch.tensor([[5, -7]], dtype=torch.int8)
    units, bias = torch.tensor([2.0]), torch.tensor([0.25])
    try:
        found = integer_linear_layer(rows, 0.5, 3, packed_integers(weight), units, bias, torch.float32)
    except (AttributeError, RuntimeError, TypeError):
        return False
    return bool(found.item() == 0.5 * 2.0 * (0 * 5 - 197 * 7) + 0.25)


def packed_integers(weight: Int8[Tensor, "outputs inputs"]) -> Tensor:
    """Weights in the memory format of `integer_linear_layer`."""
    return torch.ops.onednn.qlinear_prepack(weight, None)


def integer_linear_layer(
    rows: UInt8[Tensor, "rows inputs"],
    step: float,
    zero: int,
    packed_weight: Tensor,
    units: Float[Tensor, " outputs"],
    bias: Float[Tensor, " outputs"],
    dtype: torch.dtype,
) -> Float[Tensor, "rows outputs"]:
    """Apply a linear layer to quantised rows, `step * (rows - zero)`, with weights that are multiples of `units`."""
    zeros = torch.zeros(len(units), dtype=torch.int32)
    return torch.ops.onednn.qlinear_pointwise(
        rows, step, zero, packed_weight, units, zeros, bias, 1.0, 0, dtype, "none", [], ""
    )


@cache
def has_bfloat16_products(device: torch.device) -> bool:
    """Whether the device has instructions for products in bfloat16."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return device.type == "cpu" and (_cpu_has("_is_avx512_bf16_supported") or _cpu_has("_is_amx_tile_supported"))


def _cpu_has(question: str) -> bool:
    """Call a private function of torch, which some versions lack."""
    answer = getattr(torch.cpu, question, None)
    return answer is not None and bool(answer())
