"""Training pairs of a homography head: local maps, matches, and homographies where known."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Float64
from torch import Tensor

from vpr_dhe.features.base import Extractor
from vpr_dhe.geometry.coordinates import cell_centres, homographies_between_inputs
from vpr_dhe.geometry.matching import mutual_nearest_neighbours
from vpr_dhe.images.loading import image_size
from vpr_dhe.records import Frame, Grid, Matches, Size
from vpr_dhe.training.rei import INLIER_THRESHOLD_PX, InlierMatches, inlier_matches
from vpr_dhe.training.sources.base import TrainingPair


class ExtractedPairs(NamedTuple):
    """Batch of pairs on the CPU, with A as query and B as candidate.

    `homographies` map pixels of A's input to pixels of B's; they are the identity where `known` is false.
    """

    query_maps: Float[Tensor, "pairs cells dimension"]
    candidate_maps: Float[Tensor, "pairs cells dimension"]
    homographies: Float64[Tensor, "pairs 3 3"]
    known: Bool[Tensor, " pairs"]
    matches: InlierMatches


def extract_pairs(pairs: Sequence[TrainingPair], extractor: Extractor, input_size: Size) -> ExtractedPairs:
    """Extract and match the local maps of at least one pair.

    Args:
        pairs: images of any size.
        extractor: frozen extractor.
        input_size: frame of the homographies and matches, in pixels.
    """
    features = extractor.extract([image for pair in pairs for image in (pair.image_a, pair.image_b)])
    queries, candidates = features[::2], features[1::2]
    grid = extractor.spec.grid
    matches = [
        match_maps(query.local_map, candidate.local_map, grid, input_size)
        for query, candidate in zip(queries, candidates, strict=True)
    ]
    return ExtractedPairs(
        torch.stack([query.local_map for query in queries]).cpu(),
        torch.stack([candidate.local_map for candidate in candidates]).cpu(),
        torch.cat([homography_between_inputs(pair, input_size) for pair in pairs]),
        torch.tensor([pair.homography is not None for pair in pairs]),
        inlier_matches(matches, input_size),
    )


def match_maps(
    query: Float[Tensor, "cells dimension"], candidate: Float[Tensor, "cells dimension"], grid: Grid, input_size: Size
) -> Matches:
    """Match two local maps mutually; points are the centres of cells, in pixels of `input_size`."""
    found = mutual_nearest_neighbours(query.detach(), candidate.detach()[None])
    mutual, centres = found.mutual[0].cpu(), cell_centres(grid, input_size)
    there = found.index[0].cpu()[mutual]
    return Matches(centres[mutual], centres[there], found.similarity[0].cpu()[mutual], INLIER_THRESHOLD_PX)


def homography_between_inputs(pair: TrainingPair, input_size: Size) -> Float64[Tensor, "1 3 3"]:
    """Homography of a pair between inputs of `input_size`; the identity if unknown."""
    homography = np.eye(3) if pair.homography is None else pair.homography
    frames = [Frame(image_size(image), input_size) for image in (pair.image_a, pair.image_b)]
    return homographies_between_inputs(torch.from_numpy(homography)[None], frames[0], frames[1:])
