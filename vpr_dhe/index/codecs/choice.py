"""Choice of the smallest codec that preserves the matches of an index."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from vpr_dhe.geometry.matching import MutualNeighbours, mutual_nearest_neighbours
from vpr_dhe.index.codecs.base import LocalMapCodec
from vpr_dhe.index.codecs.float16 import Float16Codec
from vpr_dhe.index.codecs.registry import CODECS, fit_codec, obstacle
from vpr_dhe.runtime.sampling import evenly_spread

# Images that act as queries, and neighbours of each.
_QUERIES = 16
_NEIGHBOURS = 4
# On street images, codecs with an agreement of 0.37 or more lost no recall@1, and one with 0.2 to 0.3 lost a point.
MIN_AGREEMENT = 0.5


@dataclass(frozen=True)
class CodecChoice:
    """A codec, and the agreement in [0, 1] of each codec that was measured, by name."""

    codec: LocalMapCodec
    agreement: Mapping[str, float]


@dataclass(frozen=True)
class _Comparison:
    """A query, its neighbours as candidates, and their matches without a codec."""

    query: Float[Tensor, "cells dimension"]
    candidates: Float[Tensor, "candidates cells dimension"]
    matches: MutualNeighbours


def choose_codec(
    local_maps: Float[Tensor, "maps cells dimension"], descriptors: Float[Tensor, "maps descriptor_dimension"]
) -> CodecChoice:
    """Choose the smallest codec that preserves enough of the matches between these images.

    Some images act as queries, and their neighbours by descriptor as candidates. Agreement is the intersection over
    union of their mutual nearest neighbours with and without encoding the candidates. A single image has no neighbours,
    so it gets half precision without a measurement.

    Args:
        local_maps: local maps of at least one image, best spread over the index.
        descriptors: global descriptors of the same images.
    """
    if len(local_maps) < 2:
        return CodecChoice(fit_codec(Float16Codec.name, local_maps), {})
    codecs = [fit_codec(name, local_maps) for name in CODECS if not obstacle(name, local_maps)]
    comparisons = _comparisons(local_maps, descriptors)
    agreement = {codec.name: _agreement(codec, comparisons) for codec in codecs}
    faithful = [codec for codec in codecs if agreement[codec.name] >= MIN_AGREEMENT]
    smallest = min(faithful or codecs[:1], key=lambda codec: (codec.record_bytes, -agreement[codec.name]))
    return CodecChoice(smallest, agreement)


def _comparisons(
    local_maps: Float[Tensor, "maps cells dimension"], descriptors: Float[Tensor, "maps descriptor_dimension"]
) -> list[_Comparison]:
    """Match evenly spaced images with their nearest neighbours."""
    count = len(descriptors)
    queries = torch.from_numpy(evenly_spread(count, _QUERIES))
    distances = torch.cdist(descriptors[queries].float(), descriptors.float())
    distances[torch.arange(len(queries)), queries] = torch.inf
    nearest = distances.topk(min(_NEIGHBOURS, count - 1), largest=False).indices
    pairs = [
        (local_maps[query].float(), local_maps[rows].float()) for query, rows in zip(queries, nearest, strict=True)
    ]
    return [_Comparison(query, others, mutual_nearest_neighbours(query, others)) for query, others in pairs]


def _agreement(codec: LocalMapCodec, comparisons: Sequence[_Comparison]) -> float:
    """Intersection over union of the matches with and without the codec, over all pairs; 1 without any matches."""
    intersection = union = 0
    for comparison in comparisons:
        records = np.stack([np.frombuffer(codec.encode(candidate), np.uint8) for candidate in comparison.candidates])
        exact, coded = comparison.matches, mutual_nearest_neighbours(comparison.query, codec.decode(records))
        both = exact.mutual & coded.mutual & (exact.index == coded.index)
        intersection += int(both.sum())
        union += int(exact.mutual.sum() + coded.mutual.sum() - both.sum())
    return intersection / union if union else 1.0
