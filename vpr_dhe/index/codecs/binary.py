"""Codec of local maps in about two bits per number."""

from collections.abc import Mapping

import numpy as np
import torch
from jaxtyping import Bool, Float, UInt8
from torch import Tensor
from torch.nn.functional import normalize

from vpr_dhe.index.codecs.base import ALL_CELLS, CellNumbers, is_empty
from vpr_dhe.index.codecs.fitted import FittedCodec, axes_about_the_mean, of_unit_norm
from vpr_dhe.index.codecs.levels import from_levels, level_bytes, to_levels

# At 256 bits this keeps the most matches; 127 components of two bits, or signs alone, keep far fewer.
_MAX_COMPONENTS = 64
# A gain code of zero marks an empty cell.
_GAIN_PEAK = 255
_MIN_GAIN_RANGE = 1e-6
_SEED = 0


class BinaryCodec(FittedCodec):
    """Gain in eight bits and, after a random rotation, four bits per component of the rest.

    The rest is projected to at most 64 principal components, scaled to unit norm and rotated at random: all components
    then have nearly the same Gaussian distribution, and share Max's levels. A record takes 33 bytes per cell, or less
    for descriptors of few dimensions: about a quarter of `int8` at 128 dimensions, a twelfth at 384.

    Source: rotation of principal components before scalar quantisation: Gong and Lazebnik, "Iterative quantization",
    CVPR 2011, section 2.
    """

    name = "binary"

    def __init__(self, cells: int, dimension: int, parameters: Mapping[str, np.ndarray] | None = None) -> None:
        super().__init__(cells, dimension, parameters)
        self._min_gain, max_gain = self._parameters["gains"].tolist()
        self._gain_step = max(max_gain - self._min_gain, _MIN_GAIN_RANGE) / (_GAIN_PEAK - 1)
        self._components = _components_of(dimension)

    @classmethod
    def parameter_shapes(cls, dimension: int) -> dict[str, tuple[int, ...]]:
        """Orthonormal axes, the direction of the mean first, and the smallest and largest gain."""
        return {"axes": (dimension, 1 + _components_of(dimension)), "gains": (2,)}

    @classmethod
    def fit(cls, rows: Float[Tensor, "rows dimension"]) -> dict[str, np.ndarray]:
        """Fit the axes, and rotate all but the first."""
        components = _components_of(rows.shape[1])
        axes = axes_about_the_mean(rows, 1 + components)
        axes[:, 1:] = axes[:, 1:] @ _random_rotation(components)
        gains = rows @ axes[:, 0]
        return {"axes": axes.numpy(), "gains": np.array([gains.min(), gains.max()], np.float32)}

    @property
    def record_bytes(self) -> int:
        """One byte per cell for the gain, and the levels of the components."""
        return self.cells * (1 + level_bytes(self._components))

    def encode(self, local_map: Float[Tensor, "cells dimension"]) -> bytes:
        """Quantise the gain and the components."""
        rows = local_map.float().cpu()
        components = rows @ self._axes
        levels = to_levels(normalize(components[:, 1:], dim=1) * self._components**0.5)
        return np.concatenate([self._gain_codes(components[:, 0], is_empty(rows)), levels], axis=1).tobytes()

    def components(
        self, records: UInt8[np.ndarray, "maps record_bytes"], cells: CellNumbers = ALL_CELLS
    ) -> Float[Tensor, "maps cells components"]:
        """Look up the levels, and restore the norm."""
        coded = records.reshape(len(records), self.cells, 1 + level_bytes(self._components))[:, cells]
        gain_codes = torch.from_numpy(coded[..., 0].astype(np.float32))
        gain = self._min_gain + (gain_codes - 1) * self._gain_step
        levels = from_levels(coded[..., 1:].reshape(-1, level_bytes(self._components)), self._components)
        return of_unit_norm(gain, levels.unflatten(0, gain.shape), gain_codes == 0)

    def _gain_codes(
        self, gains: Float[Tensor, " cells"], empty: Bool[Tensor, " cells"]
    ) -> UInt8[np.ndarray, "cells 1"]:
        codes = 1 + ((gains - self._min_gain) / self._gain_step).round().clamp(0, _GAIN_PEAK - 1)
        return torch.where(empty, 0, codes).numpy().astype(np.uint8)[:, None]


def _components_of(dimension: int) -> int:
    """Number of components of the rest that are kept."""
    return min(_MAX_COMPONENTS, dimension - 1)


def _random_rotation(size: int) -> Float[Tensor, "size size"]:
    """Random orthogonal matrix, the same on each call."""
    return torch.linalg.qr(torch.randn(size, size, generator=torch.Generator().manual_seed(_SEED))).Q
