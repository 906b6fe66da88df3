"""Codecs of local maps: how a map of unit-norm descriptors becomes a record of one fixed size, and back.

`base.py` says what a codec does; `registry.py` lists the codecs, one file each; `fitted.py` is what those that are
fitted share; `choice.py` measures them and chooses one.
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
