"""A transformer encoder for one sequence on one core, in fewer bits: several times as fast as single precision.

Linear layers multiply in 8 bits or in bfloat16, attention in bfloat16; norms, residuals and GELU keep single precision.
Many sequences are shared out among threads, because what one needs fits the caches of a core, and a batch does not.
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
from vpr_dhe.runtime.threads import KeptMemory

_INT8_PEAK = 127
_UINT8_PEAK = 255
_LEAST_STEP = 1e-30
# Heads whose scores are computed at once: 4 MB for 576 cells, which a thread keeps.
_HEADS_TOGETHER = 6
# Sums of powers of two between these have lost none of them to the least and the greatest number of bfloat16.
_LEAST_SUM, _MOST_SUM = 2.0**-100, 2.0**100
_scores = KeptMemory()


class OneCoreLinear(ABC):
    """A linear layer in fewer bits."""

    @abstractmethod
    def __init__(self, weight: Float[Tensor, "outputs inputs"], bias: Float[Tensor, " outputs"]) -> None: ...

    @abstractmethod
    def __call__(
        self, rows: Float[Tensor, "rows inputs"], dtype: torch.dtype = torch.float32
    ) -> Float[Tensor, "rows outputs"]:
        """Multiply rows in single precision; outputs are of `dtype`, float32 or bfloat16."""


class BFloat16Linear(OneCoreLinear):
    """Products in bfloat16."""

    def __init__(self, weight: Float[Tensor, "outputs inputs"], bias: Float[Tensor, " outputs"]) -> None:
        self._weight, self._bias = weight.to(torch.bfloat16, copy=True), bias.to(torch.bfloat16, copy=True)

    def __call__(
        self, rows: Float[Tensor, "rows inputs"], dtype: torch.dtype = torch.float32
    ) -> Float[Tensor, "rows outputs"]:
        """Round rows to bfloat16."""
        return functional.linear(rows.bfloat16(), self._weight, self._bias).to(dtype)


class Int8Linear(OneCoreLinear):
    """Products of 8-bit integers: weights with a unit for each output, rows with one for all, from what they are.

    Inputs that are ten times as large as others take seven eighths of the others' precision, so a network is to be
    looked at before it is trusted to this. Needs `processor.has_integer_linear_layers`.
    """

    def __init__(self, weight: Float[Tensor, "outputs inputs"], bias: Float[Tensor, " outputs"]) -> None:
        self._units = (weight.abs().amax(dim=1) / _INT8_PEAK).clamp(min=_LEAST_STEP)
        integers = (weight / self._units[:, None]).round().to(torch.int8)
        self._weight, self._bias = packed_integers(integers), bias.clone()

    def __call__(
        self, rows: Float[Tensor, "rows inputs"], dtype: torch.dtype = torch.float32
    ) -> Float[Tensor, "rows outputs"]:
        """Round rows to 256 steps between their extremes, and zero."""
        least, most = (float(extreme) for extreme in rows.aminmax())
        step = max((max(most, 0.0) - min(least, 0.0)) / _UINT8_PEAK, _LEAST_STEP)
        if not math.isfinite(step):
            return rows.new_full((len(rows), len(self._units)), math.nan, dtype=dtype)
        zero = round(-min(least, 0.0) / step)
        # In one pass; none is negative, so nothing is lost to the "absolute" of the name.
        integers = torch.from_numpy(cv2.convertScaleAbs(rows.numpy(), alpha=1 / step, beta=zero))
        return integer_linear_layer(integers, step, zero, self._weight, self._units, self._bias, dtype)


MakeLinear: TypeAlias = Callable[[Tensor, Tensor], OneCoreLinear]
"""From weight and bias."""


class OneCoreEncoder:
    """What an `nn.TransformerEncoder` (norms last, GELU, no dropout) does to one sequence, for inference on a CPU.

    The weights are those that it had when this was made.
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
        # Scores come out as exponents of two, which are faster than those of e.
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
    """Average values by softmax to the base of two of inner products of queries and keys, head by head.

    Scores have the eight bits of bfloat16: up to 8 they are off by 0.016 at most, and weights by one part in 90.
    """
    heads, cells, size = values.shape
    attended = torch.empty(cells, heads, size)
    for first in range(0, heads, _HEADS_TOGETHER):
        some = slice(first, first + _HEADS_TOGETHER)
        weights, sums = _powers(queries[some], keys[some])
        torch.div(torch.bmm(weights, values[some]), sums, out=attended[:, some].transpose(0, 1))
    return attended.flatten(1)


def _powers(
    queries: BFloat16[Tensor, "heads cells size"], keys: BFloat16[Tensor, "heads cells size"]
) -> tuple[BFloat16[Tensor, "heads cells cells"], BFloat16[Tensor, "heads cells 1"]]:
    """Weights that are not normalised, up to a factor for each row, and their sums; lost with the next ones."""
    heads, cells, _ = queries.shape
    scores = torch.bmm(queries, keys.mT, out=_scores.room((heads, cells, cells), torch.bfloat16))
    sums = scores.exp2_().sum(dim=2, keepdim=True)
    least, most = sums.aminmax()
    if not (least > _LEAST_SUM and most < _MOST_SUM):  # seldom, so that no others look for the largest of each row
        scores = torch.bmm(queries, keys.mT)
        scores = (scores - scores.amax(dim=2, keepdim=True)).exp2_()
        sums = scores.sum(dim=2, keepdim=True)
    return scores, sums
