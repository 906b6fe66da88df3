"""Codecs of local maps: how a map of unit-norm descriptors becomes a record of one fixed size, and back.

Descriptors of one model share a large mean component, and matching compares what differs from it. An error along the
mean shifts all similarities of a cell at once and costs matches far beyond its size. The fitted codecs therefore code
the component along the mean, the gain, apart from the rest, and restore the norm of the rest from the gain: a
descriptor has unit norm. This is gain-shape coding (Gersho and Gray, "Vector Quantization and Signal Compression",
1992, chapter 12) about the mean.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from typing import ClassVar

import cv2
import numpy as np
import torch
from jaxtyping import Bool, Float, Int32, UInt8
from torch import Tensor
from torch.nn.functional import normalize

from vpr_dhe.errors import BadInputError, IndexDamagedError, IndexFormatError
from vpr_dhe.geometry.matching import MutualNeighbours, mutual_nearest_neighbours

# Rows a codec is fitted on at most: enough for a covariance of a few hundred dimensions, and done in a second.
_FIT_ROWS = 50_000
_SEED = 0
# Norms are one or zero; a descriptor of zero norm belongs to a cell that says nothing, and must decode to zero again.
_LEAST_NORM = 0.5

_INT8_PEAK = 127
# Codes between the peaks leave this one free to say that a cell is empty.
_INT8_EMPTY = -128
_LEAST_SCALE = 1e-30
_SCALE = np.dtype("<f4")

# Of the ways to spend 256 bits this keeps the most matches; 127 components of two bits, or signs alone, keep far fewer.
_BINARY_COMPONENTS = 64
_BINARY_BITS = 4
_POSITIVE_LEVELS = [0.1284, 0.3881, 0.6568, 0.9424, 1.256, 1.618, 2.069, 2.733]
_LEVELS = np.array([-level for level in reversed(_POSITIVE_LEVELS)] + _POSITIVE_LEVELS, np.float32)
_BORDERS = (_LEVELS[1:] + _LEVELS[:-1]) / 2
# A gain code of zero says that a cell is empty.
_GAIN_PEAK = 255
_LEAST_GAIN_RANGE = 1e-6

# `auto` compares this many images with this many neighbours each.
_QUERIES = 16
_NEIGHBOURS = 4
# The smallest codec with at least this agreement is chosen. On street images, codes with an agreement of 0.37 or more
# lost nothing in recall@1, and signs alone, with one of 0.2 to 0.3, lost a point. The limit keeps a margin to that.
LEAST_AGREEMENT = 0.5


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
    least_dimension: ClassVar[int] = 1

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
        return local_map.float().cpu().numpy().astype(self._stored).tobytes()

    def components(self, records: UInt8[np.ndarray, "maps record_bytes"]) -> Float[Tensor, "maps cells components"]:
        """Widen to single precision."""
        stored = np.ascontiguousarray(records).view(self._stored).astype(np.float32)
        return normalize(torch.from_numpy(stored.reshape(-1, self.cells, self.dimension)), dim=-1)


class Int8Codec(LocalMapCodec):
    """Eight bits per number, after one scale per map (little-endian float32)."""

    name = "int8"

    @property
    def record_bytes(self) -> int:
        """The scale, and one byte per number."""
        return _int8_bytes(self.cells * self.dimension)

    def encode(self, local_map: Float[Tensor, "cells dimension"]) -> bytes:
        """Scale the map so that its largest number becomes 127, and round."""
        rows = local_map.float().cpu()
        return _to_int8(rows, _is_empty(rows))

    def components(self, records: UInt8[np.ndarray, "maps record_bytes"]) -> Float[Tensor, "maps cells components"]:
        """Undo the scale."""
        numbers, empty = _from_int8(records, self.cells)
        return normalize(numbers, dim=-1).masked_fill(empty[..., None], 0)


class FittedCodec(LocalMapCodec):
    """The gain, and principal components of the rest, along orthonormal axes, that of the mean first."""

    def __init__(self, cells: int, dimension: int, parameters: Mapping[str, np.ndarray] | None = None) -> None:
        super().__init__(cells, dimension, parameters)
        self._axes = self._tensor("axes")

    def project(self, rows: Float[Tensor, "rows dimension"]) -> Float[Tensor, "rows components"]:
        """Take the components along the axes."""
        return rows @ self._axes.to(rows.device)

    def decode(self, records: UInt8[np.ndarray, "maps record_bytes"]) -> Float[Tensor, "maps cells dimension"]:
        """Go along the axes."""
        return self.components(records) @ self._axes.T


class PcaInt8Codec(FittedCodec):
    """The gain and the principal components of the rest, eight bits per number, one scale per map."""

    kept: ClassVar[int]

    def __init__(self, cells: int, dimension: int, parameters: Mapping[str, np.ndarray] | None = None) -> None:
        super().__init__(cells, dimension, parameters)
        self._mean = self._tensor("mean")
        self._mean_gain = self._mean.norm()

    @classmethod
    def parameter_shapes(cls, dimension: int) -> dict[str, tuple[int, ...]]:
        """The mean, and orthonormal axes, the direction of the mean first."""
        return {"mean": (dimension,), "axes": (dimension, cls.kept)}

    @classmethod
    def fit(cls, rows: Float[Tensor, "rows dimension"]) -> dict[str, np.ndarray]:
        """Fit the mean and the principal axes of what is orthogonal to it."""
        return {"mean": rows.mean(0).numpy(), "axes": _axes_about_the_mean(rows, cls.kept).numpy()}

    @property
    def record_bytes(self) -> int:
        """The scale, and one byte per component."""
        return _int8_bytes(self.cells * self.kept)

    def encode(self, local_map: Float[Tensor, "cells dimension"]) -> bytes:
        """Project what differs from the mean, scale and round."""
        rows = local_map.float().cpu()
        return _to_int8((rows - self._mean) @ self._axes, _is_empty(rows))

    def components(self, records: UInt8[np.ndarray, "maps record_bytes"]) -> Float[Tensor, "maps cells components"]:
        """Undo the scale and restore the norm."""
        components, empty = _from_int8(records, self.cells)
        return _of_unit_norm(components[..., 0] + self._mean_gain, components[..., 1:], empty)


class Pca128Int8Codec(PcaInt8Codec):
    """128 components."""

    name = "pca128-int8"
    least_dimension = kept = 128


class Pca64Int8Codec(PcaInt8Codec):
    """64 components."""

    name = "pca64-int8"
    least_dimension = kept = 64


class BinaryCodec(FittedCodec):
    """The gain in eight bits, and of the rest a few bits per component after a random rotation.

    The rest is projected to at most 64 principal components, scaled to unit norm and rotated at random: all components
    are then distributed alike, nearly as a Gaussian, and Max's levels for one serve them all. A record takes 33 bytes
    per cell, or less for descriptors of few dimensions: about a quarter of `int8` at 128 dimensions, a twelfth at 384.

    Sources: rotation of principal components before scalar quantisation: Gong and Lazebnik, "Iterative quantization",
    CVPR 2011, section 2; levels: Max, "Quantizing for minimum distortion", IRE Transactions on Information Theory,
    1960, table I.
    """

    name = "binary"

    def __init__(self, cells: int, dimension: int, parameters: Mapping[str, np.ndarray] | None = None) -> None:
        super().__init__(cells, dimension, parameters)
        self._least_gain, greatest_gain = self._parameters["gains"].tolist()
        self._gain_step = max(greatest_gain - self._least_gain, _LEAST_GAIN_RANGE) / (_GAIN_PEAK - 1)
        self._components = _binary_components(dimension)
        self._plane_bytes = -(-self._components // 8)

    @classmethod
    def parameter_shapes(cls, dimension: int) -> dict[str, tuple[int, ...]]:
        """Orthonormal axes, the direction of the mean first; the least and the greatest gain."""
        return {"axes": (dimension, 1 + _binary_components(dimension)), "gains": (2,)}

    @classmethod
    def fit(cls, rows: Float[Tensor, "rows dimension"]) -> dict[str, np.ndarray]:
        """Fit the axes and rotate all but the first."""
        components = _binary_components(rows.shape[1])
        axes = _axes_about_the_mean(rows, 1 + components)
        axes[:, 1:] = axes[:, 1:] @ _random_rotation(components)
        gains = rows @ axes[:, 0]
        return {"axes": axes.numpy(), "gains": np.array([gains.min(), gains.max()], np.float32)}

    @property
    def record_bytes(self) -> int:
        """One byte for the gain, and whole bytes per bit plane, for each cell."""
        return self.cells * (1 + _BINARY_BITS * self._plane_bytes)

    def encode(self, local_map: Float[Tensor, "cells dimension"]) -> bytes:
        """Replace each component by the index of its level, stored as bit planes."""
        rows = local_map.float().cpu()
        components = rows @ self._axes
        shapes = normalize(components[:, 1:], dim=1) * self._components**0.5
        codes = np.searchsorted(_BORDERS, shapes.numpy()).astype(np.uint8)
        planes = [np.packbits((codes >> bit) & 1, axis=1) for bit in range(_BINARY_BITS)]
        return np.concatenate([self._gain_codes(components[:, 0], _is_empty(rows)), *planes], axis=1).tobytes()

    def components(self, records: UInt8[np.ndarray, "maps record_bytes"]) -> Float[Tensor, "maps cells components"]:
        """Look up the levels and restore the norm."""
        if not len(records):  # which OpenCV gives nothing for
            return torch.empty(0, self.cells, 1 + self._components)
        cells = records.reshape(len(records), self.cells, 1 + _BINARY_BITS * self._plane_bytes)
        planes = cells[..., 1:].reshape(-1, _BINARY_BITS, self._plane_bytes)
        pairs = reduce(np.bitwise_or, (cv2.LUT(planes[:, bit], _PAIRS[bit]) for bit in range(_BINARY_BITS)))
        levels = cv2.LUT(pairs.view(np.uint8), _LEVEL_PAIRS).view(np.float32)[:, : self._components]
        gain_codes = torch.from_numpy(cells[..., 0].astype(np.float32))
        gain = self._least_gain + (gain_codes - 1) * self._gain_step
        return _of_unit_norm(gain, torch.from_numpy(levels).unflatten(0, gain.shape), gain_codes == 0)

    def _gain_codes(
        self, gains: Float[Tensor, " cells"], empty: Bool[Tensor, " cells"]
    ) -> UInt8[np.ndarray, "cells 1"]:
        codes = 1 + ((gains - self._least_gain) / self._gain_step).round().clamp(0, _GAIN_PEAK - 1)
        return torch.where(empty, 0, codes).numpy().astype(np.uint8)[:, None]


CODECS: dict[str, type[LocalMapCodec]] = {
    codec.name: codec for codec in (Float16Codec, Int8Codec, Pca128Int8Codec, Pca64Int8Codec, BinaryCodec)
}
# These need no maps to be fitted on.
UNFITTED = (Float16Codec.name, Int8Codec.name)


@dataclass(frozen=True)
class CodecChoice:
    """A codec, and the agreement in [0, 1] that was measured of each codec that was tried."""

    codec: LocalMapCodec
    agreement: Mapping[str, float]


@dataclass(frozen=True)
class _Comparison:
    """An image as a query, its neighbours as candidates, and their matches before any codec."""

    query: Float[Tensor, "cells dimension"]
    candidates: Float[Tensor, "candidates cells dimension"]
    matches: MutualNeighbours


def fit_codec(name: str, local_maps: Float[Tensor, "maps cells dimension"]) -> LocalMapCodec:
    """Fit a codec by name on maps of the index it is for; the same maps give the same codec.

    Those in `UNFITTED` take no maps. Each of the others takes at least as many cells that say something as it keeps
    components.

    Raises:
        BadInputError: if the name is unknown, or the codec does not work with this dimension or so few maps.
    """
    if name not in CODECS:
        raise BadInputError(f"unknown codec {name!r}; available: {', '.join(CODECS)}")
    obstacle = _obstacle(name, local_maps)
    if obstacle:
        raise BadInputError(obstacle)
    cells, dimension = local_maps.shape[1:]
    parameters = {} if name in UNFITTED else CODECS[name].fit(_rows_to_fit(local_maps))
    return CODECS[name](cells, dimension, parameters)


def load_codec(name: str, cells: int, dimension: int, parameters: Mapping[str, np.ndarray]) -> LocalMapCodec:
    """Make a codec from the parameters of one that was fitted.

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


def choose_codec(
    local_maps: Float[Tensor, "maps cells dimension"], descriptors: Float[Tensor, "maps descriptor_dimension"]
) -> CodecChoice:
    """Choose the smallest codec that leaves enough of the matches as they are, measured on these very images.

    Some images act as queries, and their neighbours by descriptor as candidates. Agreement is the intersection over
    union of two sets of mutual nearest neighbours: with the candidates' maps as they are, and encoded and decoded.
    A single image has no neighbours: nothing is measured then, and half precision is safe.

    Args:
        local_maps: of images that are spread over what is indexed, at least one.
        descriptors: their global descriptors.
    """
    if len(local_maps) < 2:
        return CodecChoice(fit_codec(Float16Codec.name, local_maps), {})
    codecs = [fit_codec(name, local_maps) for name in CODECS if not _obstacle(name, local_maps)]
    comparisons = _comparisons(local_maps, descriptors)
    agreement = {codec.name: _agreement(codec, comparisons) for codec in codecs}
    faithful = [codec for codec in codecs if agreement[codec.name] >= LEAST_AGREEMENT]
    smallest = min(faithful or codecs[:1], key=lambda codec: (codec.record_bytes, -agreement[codec.name]))
    return CodecChoice(smallest, agreement)


def _obstacle(name: str, local_maps: Float[Tensor, "maps cells dimension"]) -> str | None:
    """Why this codec cannot be fitted on these maps, and what can; None if it can."""
    if name in UNFITTED:
        return None
    dimension, least = local_maps.shape[2], CODECS[name].least_dimension
    if dimension < least:
        working = [other for other, codec in CODECS.items() if dimension >= codec.least_dimension]
        return (
            f"codec {name!r} needs local maps of at least {least} dimensions, and this model's have {dimension}; "
            f"use one of: {', '.join(working)}"
        )
    found, needed = int((~_is_empty(local_maps)).sum()), CODECS[name].parameter_shapes(dimension)["axes"][1]
    if found < needed:
        return (
            f"codec {name!r} is fitted on at least {needed} cells with something to see, and the images given have "
            f"{found}; give more images, or use one of: {', '.join(UNFITTED)}"
        )
    return None


def _comparisons(
    local_maps: Float[Tensor, "maps cells dimension"], descriptors: Float[Tensor, "maps descriptor_dimension"]
) -> list[_Comparison]:
    """Match some images, evenly spread, each with its nearest others."""
    count = len(descriptors)
    queries = torch.linspace(0, count - 1, min(_QUERIES, count)).round().long()
    distances = torch.cdist(descriptors[queries].float(), descriptors.float())
    distances[torch.arange(len(queries)), queries] = torch.inf
    nearest = distances.topk(min(_NEIGHBOURS, count - 1), largest=False).indices
    pairs = [
        (local_maps[query].float(), local_maps[rows].float()) for query, rows in zip(queries, nearest, strict=True)
    ]
    return [_Comparison(query, others, mutual_nearest_neighbours(query, others)) for query, others in pairs]


def _agreement(codec: LocalMapCodec, comparisons: Sequence[_Comparison]) -> float:
    """Intersection over union of the matches with and without the codec, over all pairs; 1 where nothing matches."""
    kept = found = 0
    for comparison in comparisons:
        records = np.stack([np.frombuffer(codec.encode(candidate), np.uint8) for candidate in comparison.candidates])
        plain, coded = comparison.matches, mutual_nearest_neighbours(comparison.query, codec.decode(records))
        both = plain.mutual & coded.mutual & (plain.index == coded.index)
        kept += int(both.sum())
        found += int(plain.mutual.sum() + coded.mutual.sum() - both.sum())
    return kept / found if found else 1.0


def _is_empty(rows: Float[Tensor, "*maps cells dimension"]) -> Bool[Tensor, "*maps cells"]:
    return rows.float().norm(dim=-1) < _LEAST_NORM


def _rows_to_fit(local_maps: Float[Tensor, "maps cells dimension"]) -> Float[Tensor, "rows dimension"]:
    """The descriptors of all cells that say something, or a random sample of them."""
    places = torch.nonzero(~_is_empty(local_maps).flatten()).flatten()
    if len(places) > _FIT_ROWS:
        chosen = torch.randperm(len(places), generator=torch.Generator().manual_seed(_SEED))[:_FIT_ROWS]
        places = places[chosen.to(places.device)]
    return local_maps.flatten(0, 1)[places].float().cpu()


def _axes_about_the_mean(rows: Float[Tensor, "rows dimension"], count: int) -> Float[Tensor, "dimension count"]:
    """Orthonormal axes: the direction of the mean, then the principal axes of what is orthogonal to it."""
    mean = rows.mean(0).double()
    direction = normalize(mean, dim=0)
    covariance = (rows.T @ rows).double() / len(rows) - torch.outer(mean, mean)
    beside = torch.eye(len(mean), dtype=torch.float64) - torch.outer(direction, direction)
    # A negative eigenvalue keeps the direction of the mean apart from others in which nothing varies.
    within = beside @ covariance @ beside - torch.outer(direction, direction)
    principal = torch.linalg.eigh(within).eigenvectors.flip(1)[:, : count - 1]
    return torch.cat([direction[:, None], principal], dim=1).float()


def _random_rotation(size: int) -> Float[Tensor, "size size"]:
    """A random orthogonal matrix, always the same one."""
    return torch.linalg.qr(torch.randn(size, size, generator=torch.Generator().manual_seed(_SEED))).Q


def _of_unit_norm(
    gain: Float[Tensor, "maps cells"], rest: Float[Tensor, "maps cells components"], empty: Bool[Tensor, "maps cells"]
) -> Float[Tensor, "maps cells 1+components"]:
    """The gain, and the rest scaled to what the gain leaves of unit norm; empty cells are zero."""
    gain = gain.clamp(-1, 1)
    scale = (1 - gain.square()).sqrt() / torch.linalg.vector_norm(rest, dim=-1).clamp(min=_LEAST_SCALE)
    components = torch.empty(*gain.shape, 1 + rest.shape[-1])
    components[..., 0] = gain.masked_fill(empty, 0)
    torch.mul(rest, scale.masked_fill(empty, 0)[..., None], out=components[..., 1:])
    return components


def _tables_of_pairs() -> list[Int32[np.ndarray, "1 256"]]:
    """For each bit plane, from a byte of eight components' bits to four bytes, each of two components' codes."""
    bits = np.unpackbits(np.arange(256, dtype=np.uint8)[:, None], axis=1)
    return [
        ((bits[:, 0::2] << bit) | (bits[:, 1::2] << (_BINARY_BITS + bit))).view(np.int32).reshape(1, -1)
        for bit in range(_BINARY_BITS)
    ]


# Looked up byte by byte, as numbers of four and eight bytes that are taken apart afterwards.
_PAIRS = _tables_of_pairs()
_LEVEL_PAIRS = np.stack([np.tile(_LEVELS, 16), np.repeat(_LEVELS, 16)], axis=1).view(np.float64).reshape(1, -1)


def _binary_components(dimension: int) -> int:
    return min(_BINARY_COMPONENTS, dimension - 1)


def _int8_bytes(count: int) -> int:
    return _SCALE.itemsize + count


def _to_int8(numbers: Float[Tensor, "cells size"], empty: Bool[Tensor, " cells"]) -> bytes:
    """One scale for all numbers, and each as a multiple of it; empty cells get the one code that is left over."""
    numbers = numbers.masked_fill(empty[:, None], 0)
    scale = numbers.abs().amax() / _INT8_PEAK
    codes = (numbers / scale.clamp(min=_LEAST_SCALE)).round().clamp(-_INT8_PEAK, _INT8_PEAK)
    codes = codes.masked_fill(empty[:, None], _INT8_EMPTY)
    return scale.numpy().astype(_SCALE).tobytes() + codes.numpy().astype(np.int8).tobytes()


def _from_int8(
    records: UInt8[np.ndarray, "maps record_bytes"], cells: int
) -> tuple[Float[Tensor, "maps cells size"], Bool[Tensor, "maps cells"]]:
    """The numbers, and which cells are empty."""
    scale = np.ascontiguousarray(records[:, : _SCALE.itemsize]).view(_SCALE).astype(np.float32)
    codes = records[:, _SCALE.itemsize :].view(np.int8)
    codes = codes.reshape(len(codes), cells, codes.shape[1] // cells)
    numbers = torch.from_numpy(codes * scale[:, :, None])
    return numbers, torch.from_numpy(codes[..., 0] == _INT8_EMPTY)
