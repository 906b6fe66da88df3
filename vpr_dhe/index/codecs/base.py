"""Interface of codecs of local maps."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import ClassVar, TypeAlias

import numpy as np
import torch
from jaxtyping import Bool, Float, Int64, UInt8
from torch import Tensor

CellNumbers: TypeAlias = Int64[np.ndarray, " chosen"] | slice
"""Numbers of some cells of a map, or a slice of them."""

ALL_CELLS = slice(None)
# Norms are one or, in empty cells, zero.
_MIN_NORM = 0.5


class LocalMapCodec(ABC):
    """Codec between local maps and records of `record_bytes` bytes.

    A descriptor of zero norm marks an empty cell, and is decoded to zero. `eight_bits` tells whether records are so
    coarse that matching in eight bits loses nothing.

    Args:
        cells: number of cells of a map.
        dimension: length of a descriptor.
        parameters: fitted parameters by name, with the shapes of `parameter_shapes`.
    """

    name: ClassVar[str]
    eight_bits: ClassVar[bool] = True
    min_dimension: ClassVar[int] = 1

    def __init__(self, cells: int, dimension: int, parameters: Mapping[str, np.ndarray] | None = None) -> None:
        self.cells, self.dimension = cells, dimension
        self._parameters = dict(parameters or {})

    @property
    def parameters(self) -> dict[str, np.ndarray]:
        """Fitted parameters, float32; empty for codecs that are not fitted."""
        return dict(self._parameters)

    @classmethod
    def parameter_shapes(cls, dimension: int) -> dict[str, tuple[int, ...]]:  # noqa: ARG003
        """Names and shapes of the parameters for descriptors of a dimension."""
        return {}

    @classmethod
    def fit(cls, rows: Float[Tensor, "rows dimension"]) -> dict[str, np.ndarray]:  # noqa: ARG003
        """Fit the parameters to descriptors of unit norm, deterministically."""
        return {}

    @property
    @abstractmethod
    def record_bytes(self) -> int:
        """Size of one record."""

    @abstractmethod
    def encode(self, local_map: Float[Tensor, "cells dimension"]) -> bytes:
        """Encode one map; rows of zero norm are empty cells."""

    @abstractmethod
    def components(
        self, records: UInt8[np.ndarray, "maps record_bytes"], cells: CellNumbers = ALL_CELLS
    ) -> Float[Tensor, "maps cells components"]:
        """Decode some cells of maps to float32 in the space of the code, rows of unit norm or zero.

        That space has orthonormal axes: inner products with rows from `project` equal those of decoded maps with the
        original rows, and are cheaper if there are fewer components than dimensions.
        """

    def project(self, rows: Float[Tensor, "rows dimension"]) -> Float[Tensor, "rows components"]:
        """Project descriptors to the space of `components`."""
        return rows

    def decode(self, records: UInt8[np.ndarray, "maps record_bytes"]) -> Float[Tensor, "maps cells dimension"]:
        """Decode maps to float32 in the space of the original descriptors, rows of unit norm or zero."""
        return self.components(records)

    def _tensor(self, name: str) -> Tensor:
        # A copy, because torch warns of read-only arrays.
        return torch.tensor(self._parameters[name])


def is_empty(rows: Float[Tensor, "*maps cells dimension"]) -> Bool[Tensor, "*maps cells"]:
    """Mask of empty cells."""
    return rows.float().norm(dim=-1) < _MIN_NORM
