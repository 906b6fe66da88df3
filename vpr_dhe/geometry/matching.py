"""Mutual nearest neighbours of descriptor sets, batched over candidates."""

# Tensor.split carries no types, and what it returns is stated by the signatures here.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

# Similarities held at once; enough to feed the cores, little enough to stay near the caches.
_CHUNK_ENTRIES = 16 * 576 * 576


@dataclass(frozen=True)
class MutualNeighbours:
    """For every query descriptor its nearest candidate descriptor, and whether each is the other's nearest."""

    index: Int64[Tensor, "candidates query_cells"]
    mutual: Bool[Tensor, "candidates query_cells"]
    similarity: Float[Tensor, "candidates query_cells"]


def mutual_nearest_neighbours(
    query: Float[Tensor, "query_cells dimension"], candidates: Float[Tensor, "candidates cells dimension"]
) -> MutualNeighbours:
    """Match unit-norm descriptors of one query with those of many candidates by cosine.

    The result has a fixed shape with a mask, so nothing here waits for the device. A descriptor of zero norm (a cell
    that says nothing) is matched with nobody: its similarity is 0 and mutual is False. Matches are one-to-one, also
    where similarities tie.
    """
    chunk = max(1, _CHUNK_ENTRIES // max(1, query.shape[0] * candidates.shape[1]))
    parts = [_match_chunk(query, part) for part in candidates.split(chunk)]
    return MutualNeighbours(*(torch.cat(column) for column in zip(*parts, strict=True)))


def _match_chunk(
    query: Float[Tensor, "query_cells dimension"], candidates: Float[Tensor, "candidates cells dimension"]
) -> tuple[Tensor, Tensor, Tensor]:
    similarity = query @ candidates.mT
    best, index = similarity.max(dim=2)
    best_back = similarity.argmax(dim=1)
    own = torch.arange(query.shape[0], device=query.device)
    mutual = (best_back.gather(1, index) == own) & (best > 0)
    return index, mutual, best
