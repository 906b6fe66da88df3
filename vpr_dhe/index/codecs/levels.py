"""Quantisation of numbers with a Gaussian distribution to sixteen levels, stored as bit planes.

Source of the levels: Max, "Quantizing for minimum distortion", IRE Transactions on Information Theory, 1960, table I.
"""

from functools import reduce

import cv2
import numpy as np
import torch
from jaxtyping import Float, Int32, UInt8
from torch import Tensor

_BITS = 4
_POSITIVE_LEVELS = [0.1284, 0.3881, 0.6568, 0.9424, 1.256, 1.618, 2.069, 2.733]
_LEVELS = np.array([-level for level in reversed(_POSITIVE_LEVELS)] + _POSITIVE_LEVELS, np.float32)
_BORDERS = (_LEVELS[1:] + _LEVELS[:-1]) / 2


def level_bytes(count: int) -> int:
    """Number of bytes of `count` numbers, with whole bytes for each bit plane."""
    return _BITS * -(-count // 8)


def to_levels(numbers: Float[Tensor, "rows count"]) -> UInt8[np.ndarray, "rows level_bytes"]:
    """Encode each number by the index of its level."""
    codes = np.searchsorted(_BORDERS, numbers.numpy()).astype(np.uint8)
    return np.concatenate([np.packbits((codes >> bit) & 1, axis=1) for bit in range(_BITS)], axis=1)


def from_levels(planes: UInt8[np.ndarray, "rows level_bytes"], count: int) -> Float[Tensor, "rows count"]:
    """Decode `count` numbers in each row."""
    if not len(planes):  # OpenCV returns None for empty arrays
        return torch.empty(0, count)
    by_bit = planes.reshape(len(planes), _BITS, -1)
    pairs = reduce(np.bitwise_or, (cv2.LUT(by_bit[:, bit], _PAIRS[bit]) for bit in range(_BITS)))
    return torch.from_numpy(cv2.LUT(pairs.view(np.uint8), _LEVEL_PAIRS).view(np.float32)[:, :count])


def _tables_of_pairs() -> list[Int32[np.ndarray, "1 256"]]:
    """Tables, one per bit plane, from the bits of eight numbers to four bytes with the codes of two numbers each."""
    bits = np.unpackbits(np.arange(256, dtype=np.uint8)[:, None], axis=1)
    return [
        ((bits[:, 0::2] << bit) | (bits[:, 1::2] << (_BITS + bit))).view(np.int32).reshape(1, -1)
        for bit in range(_BITS)
    ]


# Tables are looked up byte by byte; their entries of four and eight bytes are split afterwards.
_PAIRS = _tables_of_pairs()
_LEVEL_PAIRS = np.stack([np.tile(_LEVELS, 16), np.repeat(_LEVELS, 16)], axis=1).view(np.float64).reshape(1, -1)
