"""Codecs of local maps, between maps of unit-norm descriptors and records of a fixed size.

`base.py` is the interface; `registry.py` lists the codecs, one file each; `fitted.py` is the base of those that are
fitted to data; `choice.py` measures them and chooses one.
"""

from vpr_dhe.index.codecs.base import LocalMapCodec
from vpr_dhe.index.codecs.choice import MIN_AGREEMENT, CodecChoice, choose_codec
from vpr_dhe.index.codecs.registry import CODECS, UNFITTED, fit_codec, load_codec

__all__ = [
    "CODECS",
    "MIN_AGREEMENT",
    "UNFITTED",
    "CodecChoice",
    "LocalMapCodec",
    "choose_codec",
    "fit_codec",
    "load_codec",
]
