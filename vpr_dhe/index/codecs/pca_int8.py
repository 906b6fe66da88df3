"""Codec of principal components of local maps in eight bits each."""

from collections.abc import Mapping
from typing import ClassVar

import numpy as np
from jaxtyping import Float, UInt8
from torch import Tensor

from vpr_dhe.index.codecs.base import ALL_CELLS, CellNumbers, is_empty
from vpr_dhe.index.codecs.fitted import FittedCodec, axes_about_the_mean, of_unit_norm
from vpr_dhe.index.codecs.int8 import from_int8, int8_bytes, to_int8


class PcaInt8Codec(FittedCodec):
    """Gain and principal components of the rest, eight bits per number, one scale per map."""

    kept: ClassVar[int]

    def __init__(self, cells: int, dimension: int, parameters: Mapping[str, np.ndarray] | None = None) -> None:
        super().__init__(cells, dimension, parameters)
        self._mean = self._tensor("mean")
        self._mean_gain = self._mean.norm()

    @classmethod
    def parameter_shapes(cls, dimension: int) -> dict[str, tuple[int, ...]]:
        """Mean, and orthonormal axes, the direction of the mean first."""
        return {"mean": (dimension,), "axes": (dimension, cls.kept)}

    @classmethod
    def fit(cls, rows: Float[Tensor, "rows dimension"]) -> dict[str, np.ndarray]:
        """Fit the mean and the axes."""
        return {"mean": rows.mean(0).numpy(), "axes": axes_about_the_mean(rows, cls.kept).numpy()}

    @property
    def record_bytes(self) -> int:
        """Four bytes for the scale, and one byte per component."""
        return int8_bytes(self.cells * self.kept)

    def encode(self, local_map: Float[Tensor, "cells dimension"]) -> bytes:
        """Subtract the mean, project, scale and round."""
        rows = local_map.float().cpu()
        return to_int8((rows - self._mean) @ self._axes, is_empty(rows))

    def components(
        self, records: UInt8[np.ndarray, "maps record_bytes"], cells: CellNumbers = ALL_CELLS
    ) -> Float[Tensor, "maps cells components"]:
        """Undo the scale, and restore the norm."""
        components, empty = from_int8(records, self.cells, cells)
        return of_unit_norm(components[..., 0] + self._mean_gain, components[..., 1:], empty)


class Pca128Int8Codec(PcaInt8Codec):
    """PcaInt8Codec with 128 components."""

    name = "pca128-int8"
    min_dimension = kept = 128


class Pca64Int8Codec(PcaInt8Codec):
    """PcaInt8Codec with 64 components."""

    name = "pca64-int8"
    min_dimension = kept = 64
