"""Transformer encoder for one sequence on one core in bf16 or int8, several times as fast as single precision.

Linear layers multiply in 8 bits or in bfloat16, attention in bfloat16; norms, residuals and GELU keep single precision.
Sequences are encoded in parallel threads, one per core: a sequence fits the caches of a core, a batch does not.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from copy import deepcopy
from itertools import starmap
from typing import TypeAlias, cast

import cv2
import torch
from jaxtyping import BFloat16, Float
from torch import Tensor, nn
from torch.nn import functional

from vpr_dhe.runtime.cpu_features import integer_linear_layer, packed_integers
from vpr_dhe.runtime.threads import ScratchMemory

_INT8_PEAK = 127
_UINT8_PEAK = 255
_MIN_STEP = 1e-30
# Attention heads whose scores are computed at once: 4 MB for 576 cells, in memory that each thread keeps.
_HEADS_AT_ONCE = 6
# Between these bounds, no summand under- or overflowed bfloat16.
_MIN_SUM, _MAX_SUM = 2.0**-100, 2.0**100
_scores = ScratchMemory()


class OneCoreLinear(ABC):
    """Linear layer in reduced precision."""

    @abstractmethod
    def __init__(self, weight: Float[Tensor, "outputs inputs"], bias: Float[Tensor, " outputs"]) -> None: ...

    @abstractmethod
    def __call__(
        self, rows: Float[Tensor, "rows inputs"], dtype: torch.dtype = torch.float32
    ) -> Float[Tensor, "rows outputs"]:
        """Apply the layer to rows of float32; outputs are of `dtype`, float32 or bfloat16."""


class BFloat16Linear(OneCoreLinear):
    """Linear layer in bfloat16."""

    def __init__(self, weight: Float[Tensor, "outputs inputs"], bias: Float[Tensor, " outputs"]) -> None:
        self._weight, self._bias = weight.to(torch.bfloat16, copy=True), bias.to(torch.bfloat16, copy=True)

    def __call__(
        self, rows: Float[Tensor, "rows inputs"], dtype: torch.dtype = torch.float32
    ) -> Float[Tensor, "rows outputs"]:
        """Apply the layer to rows rounded to bfloat16."""
        return functional.linear(rows.bfloat16(), self._weight, self._bias).to(dtype)


class Int8Linear(OneCoreLinear):
    """Linear layer of 8-bit integers: weights with a scale per output, rows with one scale for all, set dynamically.

    Inputs ten times as large as the others cost those most of their precision, so check the accuracy of each network.
    Needs `cpu_features.has_integer_linear_layers`.
    """

    def __init__(self, weight: Float[Tensor, "outputs inputs"], bias: Float[Tensor, " outputs"]) -> None:
        self._units = (weight.abs().amax(dim=1) / _INT8_PEAK).clamp(min=_MIN_STEP)
        integers = (weight / self._units[:, None]).round().to(torch.int8)
        self._weight, self._bias = packed_integers(integers), bias.clone()

    def __call__(
        self, rows: Float[Tensor, "rows inputs"], dtype: torch.dtype = torch.float32
    ) -> Float[Tensor, "rows outputs"]:
        """Apply the layer to rows rounded to 256 steps between their extremes, zero included."""
        least, most = (float(extreme) for extreme in rows.aminmax())
        step = max((max(most, 0.0) - min(least, 0.0)) / _UINT8_PEAK, _MIN_STEP)
        if not math.isfinite(step):
            return rows.new_full((len(rows), len(self._units)), math.nan, dtype=dtype)
        zero = round(-min(least, 0.0) / step)
        # Rounds in one pass; the absolute value changes nothing, because no result is negative.
        integers = torch.from_numpy(cv2.convertScaleAbs(rows.numpy(), alpha=1 / step, beta=zero))
        return integer_linear_layer(integers, step, zero, self._weight, self._units, self._bias, dtype)


MakeLinear: TypeAlias = Callable[[Tensor, Tensor], OneCoreLinear]
"""Maker of a layer from its weight and bias."""


class OneCoreEncoder:
    """Inference of an `nn.TransformerEncoder` (post-norm, GELU, no dropout) on one sequence on a CPU.

    The weights are copied on construction.
    """

    def __init__(self, encoder: nn.TransformerEncoder, make: MakeLinear) -> None:
        self._layers = [_Layer(cast("nn.TransformerEncoderLayer", layer), make) for layer in encoder.layers]

    @torch.inference_mode()
    def __call__(self, tokens: Float[Tensor, "cells width"]) -> Float[Tensor, "cells width"]:
        """Encode one sequence."""
        for layer in self._layers:
            tokens = layer(tokens)
        return tokens


class _Layer:
    def __init__(self, layer: nn.TransformerEncoderLayer, make: MakeLinear) -> None:
        attention = layer.self_attn
        self._heads = attention.num_heads
        # Scores become exponents of 2, which are faster than those of e.
        scale = torch.ones(3 * attention.embed_dim, 1)
        scale[: attention.embed_dim] = attention.head_dim**-0.5 / math.log(2)
        self._project = make(attention.in_proj_weight.detach() * scale, attention.in_proj_bias.detach() * scale[:, 0])
        others = (attention.out_proj, layer.linear1, layer.linear2)
        self._join, self._widen, self._narrow = starmap(
            make, ((linear.weight.detach(), linear.bias.detach()) for linear in others)
        )
        self._first_norm, self._second_norm = deepcopy(layer.norm1), deepcopy(layer.norm2)

    def __call__(self, tokens: Float[Tensor, "cells width"]) -> Float[Tensor, "cells width"]:
        projected = self._project(tokens, torch.bfloat16).unflatten(1, (3, self._heads, -1))
        queries, keys, values = projected.permute(1, 2, 0, 3)
        tokens = self._first_norm(self._join(attend(queries, keys, values)).add_(tokens))
        hidden = torch.ops.aten.gelu_(self._widen(tokens))
        return self._second_norm(self._narrow(hidden).add_(tokens))


def attend(
    queries: BFloat16[Tensor, "heads cells size"],
    keys: BFloat16[Tensor, "heads cells size"],
    values: BFloat16[Tensor, "heads cells size"],
) -> Float[Tensor, "cells heads*size"]:
    """Attention with a softmax to base 2, head by head.

    Scores have the eight bits of bfloat16: up to 8 they are off by at most 0.016, and weights by one part in 90.
    """
    heads, cells, size = values.shape
    attended = torch.empty(cells, heads, size)
    for first in range(0, heads, _HEADS_AT_ONCE):
        some = slice(first, first + _HEADS_AT_ONCE)
        weights, sums = _powers(queries[some], keys[some])
        torch.div(torch.bmm(weights, values[some]), sums, out=attended[:, some].transpose(0, 1))
    return attended.flatten(1)


def _powers(
    queries: BFloat16[Tensor, "heads cells size"], keys: BFloat16[Tensor, "heads cells size"]
) -> tuple[BFloat16[Tensor, "heads cells cells"], BFloat16[Tensor, "heads cells 1"]]:
    """Unnormalised weights, up to a factor per row, and their sums; the next call overwrites them."""
    heads, cells, _ = queries.shape
    scores = torch.bmm(queries, keys.mT, out=_scores.tensor((heads, cells, cells), torch.bfloat16))
    sums = scores.exp2_().sum(dim=2, keepdim=True)
    least, most = sums.aminmax()
    if not (least > _MIN_SUM and most < _MAX_SUM):  # rare, so the maximum of each row is computed only here
        scores = torch.bmm(queries, keys.mT)
        scores = (scores - scores.amax(dim=2, keepdim=True)).exp2_()
        sums = scores.sum(dim=2, keepdim=True)
    return scores, sums
