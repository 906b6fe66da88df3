"""What every codec of local maps does."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import ClassVar

import numpy as np
import torch
from jaxtyping import Bool, Float, UInt8
from torch import Tensor

# Norms are one or zero; a descriptor of zero norm belongs to a cell that says nothing, and must decode to zero again.
_MIN_NORM = 0.5


class LocalMapCodec(ABC):
    """Turns a local map into a record of `record_bytes` bytes, and records into local maps.

    Args:
        cells: cells of a map.
        dimension: of one descriptor.
        parameters: what was fitted, by name, in the shapes of `parameter_shapes`.

    `eight_bits` says that records are so coarse that matching loses nothing with eight bits per number.
    """

    name: ClassVar[str]
    eight_bits: ClassVar[bool] = True
    min_dimension: ClassVar[int] = 1

    def __init__(self, cells: int, dimension: int, parameters: Mapping[str, np.ndarray] | None = None) -> None:
        self.cells, self.dimension = cells, dimension
        self._parameters = dict(parameters or {})

    @property
    def parameters(self) -> dict[str, np.ndarray]:
        """What was fitted, float32; nothing for a codec that is the same for all models."""
        return dict(self._parameters)

    @classmethod
    def parameter_shapes(cls, dimension: int) -> dict[str, tuple[int, ...]]:  # noqa: ARG003
        """Name and shape of each parameter for descriptors of this dimension."""
        return {}

    @classmethod
    def fit(cls, rows: Float[Tensor, "rows dimension"]) -> dict[str, np.ndarray]:  # noqa: ARG003
        """Fit the parameters on descriptors of unit norm; the same rows give the same parameters."""
        return {}

    @property
    @abstractmethod
    def record_bytes(self) -> int:
        """Size of one record."""

    @abstractmethod
    def encode(self, local_map: Float[Tensor, "cells dimension"]) -> bytes:
        """Encode one map; a row of zero norm is a cell that says nothing."""

    @abstractmethod
    def components(self, records: UInt8[np.ndarray, "maps record_bytes"]) -> Float[Tensor, "maps cells components"]:
        """Decode maps to float32 in the space that they are coded in, rows of unit norm or zero.

        That space has orthonormal axes: inner products with rows that `project` brought there are those of the decoded
        maps with the original rows, and cost less where there are fewer components than dimensions.
        """

    def project(self, rows: Float[Tensor, "rows dimension"]) -> Float[Tensor, "rows components"]:
        """Bring descriptors to the space of `components`; what lies outside of it is dropped."""
        return rows

    def decode(self, records: UInt8[np.ndarray, "maps record_bytes"]) -> Float[Tensor, "maps cells dimension"]:
        """Decode maps to float32, in the space of the original descriptors, rows of unit norm or zero."""
        return self.components(records)

    def _tensor(self, name: str) -> Tensor:
        # A copy, because what was read from a file may not be writeable, which torch warns of.
        return torch.tensor(self._parameters[name])


def is_empty(rows: Float[Tensor, "*maps cells dimension"]) -> Bool[Tensor, "*maps cells"]:
    """Which cells say nothing."""
    return rows.float().norm(dim=-1) < _MIN_NORM
