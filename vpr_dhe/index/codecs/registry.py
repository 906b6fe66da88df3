"""Registry of codecs; a new one is one new file and one line here."""

from collections.abc import Mapping

import numpy as np
from jaxtyping import Float
from torch import Tensor

from vpr_dhe.errors import BadInputError, IndexDamagedError, IndexFormatError
from vpr_dhe.index.codecs.base import LocalMapCodec, is_empty
from vpr_dhe.index.codecs.binary import BinaryCodec
from vpr_dhe.index.codecs.fitted import FittedCodec, rows_to_fit
from vpr_dhe.index.codecs.float16 import Float16Codec
from vpr_dhe.index.codecs.int8 import Int8Codec
from vpr_dhe.index.codecs.pca_int8 import Pca64Int8Codec, Pca128Int8Codec

CODECS: dict[str, type[LocalMapCodec]] = {
    codec.name: codec for codec in (Float16Codec, Int8Codec, Pca128Int8Codec, Pca64Int8Codec, BinaryCodec)
}
UNFITTED = tuple(name for name, codec in CODECS.items() if not issubclass(codec, FittedCodec))
"""Codecs without fitted parameters."""


def fit_codec(name: str, local_maps: Float[Tensor, "maps cells dimension"]) -> LocalMapCodec:
    """Fit a codec to maps of its index, deterministically.

    Codecs in `UNFITTED` need no maps; the others need at least as many non-empty cells as they keep components.

    Raises:
        BadInputError: if the name is unknown, or the codec does not support this dimension or so few maps.
    """
    if name not in CODECS:
        raise BadInputError(f"unknown codec {name!r}; available: {', '.join(CODECS)}")
    if reason := unsupported_reason(name, local_maps):
        raise BadInputError(reason)
    cells, dimension = local_maps.shape[1:]
    parameters = {} if name in UNFITTED else CODECS[name].fit(rows_to_fit(local_maps))
    return CODECS[name](cells, dimension, parameters)


def load_codec(name: str, cells: int, dimension: int, parameters: Mapping[str, np.ndarray]) -> LocalMapCodec:
    """Make a codec from stored parameters.

    Raises:
        IndexFormatError: if the name is unknown.
        IndexDamagedError: if the parameters are not those of such a codec.
    """
    if name not in CODECS:
        raise IndexFormatError(f"local maps are stored as {name!r}; this version reads: {', '.join(CODECS)}")
    expected = CODECS[name].parameter_shapes(dimension)
    found = {key: value.shape for key, value in parameters.items()}
    if found != expected:
        raise IndexDamagedError(
            f"the parameters of codec {name!r} have the shapes {found}, not {expected}; index the images again"
        )
    if not all(value.dtype == np.float32 and np.isfinite(value).all() for value in parameters.values()):
        raise IndexDamagedError(f"the parameters of codec {name!r} are not all finite float32; index the images again")
    return CODECS[name](cells, dimension, parameters)


def unsupported_reason(name: str, local_maps: Float[Tensor, "maps cells dimension"]) -> str | None:
    """Reason why a codec cannot be fitted to maps, and the codecs that can; None if it can be."""
    if name in UNFITTED:
        return None
    dimension, min_dimension = local_maps.shape[2], CODECS[name].min_dimension
    if dimension < min_dimension:
        working = [other for other, codec in CODECS.items() if dimension >= codec.min_dimension]
        return (
            f"codec {name!r} needs local maps of at least {min_dimension} dimensions, and this model's have "
            f"{dimension}; use one of: {', '.join(working)}"
        )
    found, needed = int((~is_empty(local_maps)).sum()), CODECS[name].parameter_shapes(dimension)["axes"][1]
    if found < needed:
        return (
            f"codec {name!r} is fitted on at least {needed} cells with something to see, and the images given have "
            f"{found}; give more images, or use one of: {', '.join(UNFITTED)}"
        )
    return None
