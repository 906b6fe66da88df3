"""Codec of local maps in eight bits per number."""

import numpy as np
import torch
from jaxtyping import Bool, Float, UInt8
from torch import Tensor
from torch.nn.functional import normalize

from vpr_dhe.index.codecs.base import ALL_CELLS, CellNumbers, LocalMapCodec, is_empty

_PEAK = 127
# Code of empty cells, outside of -127 to 127.
_EMPTY = -128
_MIN_SCALE = 1e-30
_SCALE = np.dtype("<f4")


class Int8Codec(LocalMapCodec):
    """Eight bits per number, and one scale per map (little-endian float32)."""

    name = "int8"

    @property
    def record_bytes(self) -> int:
        """Four bytes for the scale, and one byte per number."""
        return int8_bytes(self.cells * self.dimension)

    def encode(self, local_map: Float[Tensor, "cells dimension"]) -> bytes:
        """Scale the map to at most 127, and round."""
        rows = local_map.float().cpu()
        return to_int8(rows, is_empty(rows))

    def components(
        self, records: UInt8[np.ndarray, "maps record_bytes"], cells: CellNumbers = ALL_CELLS
    ) -> Float[Tensor, "maps cells components"]:
        """Undo the scale, and restore the norm."""
        numbers, empty = from_int8(records, self.cells, cells)
        return normalize(numbers, dim=-1).masked_fill(empty[..., None], 0)


def int8_bytes(count: int) -> int:
    """Number of bytes of `count` numbers and their scale."""
    return _SCALE.itemsize + count


def to_int8(numbers: Float[Tensor, "cells size"], empty: Bool[Tensor, " cells"]) -> bytes:
    """Encode numbers as multiples of one scale; empty cells get a special code."""
    numbers = numbers.masked_fill(empty[:, None], 0)
    scale = numbers.abs().amax() / _PEAK
    codes = (numbers / scale.clamp(min=_MIN_SCALE)).round().clamp(-_PEAK, _PEAK)
    codes = codes.masked_fill(empty[:, None], _EMPTY)
    return scale.numpy().astype(_SCALE).tobytes() + codes.numpy().astype(np.int8).tobytes()


def from_int8(
    records: UInt8[np.ndarray, "maps record_bytes"], count: int, cells: CellNumbers
) -> tuple[Float[Tensor, "maps cells size"], Bool[Tensor, "maps cells"]]:
    """Decode the numbers of some of `count` cells, and the mask of empty ones."""
    scale = np.ascontiguousarray(records[:, : _SCALE.itemsize]).view(_SCALE).astype(np.float32)
    codes = records[:, _SCALE.itemsize :].view(np.int8)
    codes = codes.reshape(len(codes), count, codes.shape[1] // count)[:, cells]
    numbers = torch.from_numpy(codes * scale[:, :, None])
    return numbers, torch.from_numpy(codes[..., 0] == _EMPTY)
