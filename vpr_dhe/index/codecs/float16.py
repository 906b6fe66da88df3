"""Codec of local maps in half precision."""

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from vpr_dhe.index.codecs.base import ALL_CELLS, CellNumbers, LocalMapCodec

# Keeps empty cells zero.
_MIN_NORM = 1e-12


class Float16Codec(LocalMapCodec):
    """Half precision, little-endian, row-major."""

    name = "float16"
    eight_bits = False
    _stored = np.dtype("<f2")

    @property
    def record_bytes(self) -> int:
        """Two bytes per number."""
        return self.cells * self.dimension * self._stored.itemsize

    def encode(self, local_map: Float[Tensor, "cells dimension"]) -> bytes:
        """Round to half precision."""
        # Torch converts four times as fast as NumPy, to the same bits.
        return local_map.float().cpu().half().numpy().astype(self._stored, copy=False).tobytes()

    def components(
        self, records: UInt8[np.ndarray, "maps record_bytes"], cells: CellNumbers = ALL_CELLS
    ) -> Float[Tensor, "maps cells components"]:
        """Convert to single precision, and restore the norm."""
        stored = np.ascontiguousarray(records).view(self._stored).reshape(len(records), self.cells, self.dimension)
        # `take` copies whole cells, in half of the time of indexing.
        chosen = stored[:, cells] if isinstance(cells, slice) else stored.take(cells, axis=1)
        # Writable, because torch warns of arrays that are not. Torch converts four times as fast as NumPy.
        rows = torch.from_numpy(np.require(chosen, np.float16, ["C", "W"])).float()
        return rows.div_(torch.linalg.vector_norm(rows, dim=-1, keepdim=True).clamp_(min=_MIN_NORM))
