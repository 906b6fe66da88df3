"""Encoded local maps, matched in the space of the code without decoding them."""

from functools import cached_property

import numpy as np
from jaxtyping import Float, UInt8
from torch import Tensor

from vpr_dhe.geometry.matching import MutualNeighbours, match_in_parts
from vpr_dhe.index.codecs import ALL_CELLS, CellNumbers, LocalMapCodec
from vpr_dhe.runtime.threads import on_one_core


class StoredMaps:
    """Encoded local maps of some images."""

    def __init__(self, codec: LocalMapCodec, records: UInt8[np.ndarray, "maps record_bytes"]) -> None:
        self._codec, self._records = codec, records

    def __len__(self) -> int:
        """Number of maps."""
        return len(self._records)

    @cached_property
    def decoded(self) -> Float[Tensor, "maps cells dimension"]:
        """Maps in the space of the original descriptors, on the CPU."""
        return self._codec.decode(self._records)

    def match(self, query: Float[Tensor, "query_cells dimension"], cells: CellNumbers = ALL_CELLS) -> MutualNeighbours:
        """Match a query's map with these cells of all maps, on the query's device."""
        codec, records = self._codec, self._records
        return match_in_parts(
            on_one_core(codec.project, query) if query.device.type == "cpu" else codec.project(query),
            len(records),
            lambda which: codec.components(records[which], cells).to(query.device),
            eight_bits=codec.eight_bits,
        )
