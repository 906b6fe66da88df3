"""Codecs of local maps, between maps of unit-norm descriptors and records of a fixed size.

`base.py` is the interface; `registry.py` lists the codecs, one file each; `fitted.py` is the base of those that are
fitted to data.
"""

from vpr_dhe.index.codecs.base import ALL_CELLS, CellNumbers, LocalMapCodec
from vpr_dhe.index.codecs.registry import CODECS, UNFITTED, fit_codec, load_codec, unsupported_reason

__all__ = [
    "ALL_CELLS",
    "CODECS",
    "UNFITTED",
    "CellNumbers",
    "LocalMapCodec",
    "fit_codec",
    "load_codec",
    "unsupported_reason",
]
