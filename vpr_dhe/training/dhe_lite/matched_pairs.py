"""Training pairs of a network on matches: the matches of each pair, and its target homography."""

from collections.abc import Iterator, Sequence
from enum import IntEnum
from itertools import accumulate
from typing import NamedTuple

import torch
from jaxtyping import Float32, Float64, Int64
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from vpr_dhe.features.base import Extractor, ExtractorSpec
from vpr_dhe.geometry.coordinates import UNIT, homographies_between_inputs, resizing
from vpr_dhe.geometry.homography import project, reprojection_errors
from vpr_dhe.images.loading import image_size
from vpr_dhe.records import Features, Frame, Matches, Size
from vpr_dhe.training.sources.base import TrainingPair
from vpr_dhe.verification.estimators.base import MIN_MATCHES, Homographies, View, match_by_grid
from vpr_dhe.verification.estimators.dhe_lite import MatchBatch
from vpr_dhe.verification.estimators.opencv import OpenCvEstimator
from vpr_dhe.verification.names import MAGSAC

# More than the minimum for a homography, because some are dropped during training.
_MIN_MATCHES = 8


class Kind(IntEnum):
    """Kind of a pair's homography."""

    true = 0
    fitted = 1
    """MAGSAC's estimate for two photographs of one place, whose homography is unknown."""
    none = 2
    """Identity as placeholder: the images show different places, and every match is wrong."""


class MatchedPairs(NamedTuple):
    """Matches of many pairs, concatenated, on the CPU.

    A row of `points` is x and y in the query, x and y in the candidate, both in `UNIT` frames, and the similarity;
    `homographies` are from query to candidate in these frames.
    """

    points: Float32[Tensor, "matches 5"]
    counts: Int64[Tensor, " pairs"]
    homographies: Float64[Tensor, "pairs 3 3"]
    kinds: Int64[Tensor, " pairs"]

    @classmethod
    def joined(cls, parts: Sequence["MatchedPairs"]) -> "MatchedPairs":
        """Concatenate parts; there may be none."""
        nothing = cls(
            torch.zeros(0, 5),
            torch.zeros(0, dtype=torch.int64),
            torch.zeros(0, 3, 3, dtype=torch.float64),
            torch.zeros(0, dtype=torch.int64),
        )
        return cls(*(torch.cat(columns) for columns in zip(nothing, *parts, strict=True)))


def extract_all(pairs: Sequence[TrainingPair], extractor: Extractor) -> tuple[list[Features], list[Features]]:
    """Features of all queries, and of all candidates."""
    features = extractor.extract([image for pair in pairs for image in (pair.image_a, pair.image_b)])
    return features[::2], features[1::2]


def matches_between(query: Features, candidate: Features, spec: ExtractorSpec) -> Matches:
    """Match features as the verifier does."""
    return match_by_grid(query, candidate.local_map[None], spec)(0)


def views_of(matches: Sequence[Matches], input_size: Size) -> tuple[View, list[View]]:
    """Views of a query and candidates with images of size `UNIT`, so that estimates are between `UNIT` frames."""
    frame = Frame(UNIT, input_size)
    return View(frame), [View.of_matches(frame, found) for found in matches]


def magsac_between_units(matches: Sequence[Matches], input_size: Size) -> Homographies:
    """MAGSAC's homographies of matches within their tolerance."""
    return OpenCvEstimator(MAGSAC).estimate(*views_of(matches, input_size))


def true_between_units(pair: TrainingPair) -> Float64[Tensor, "3 3"]:
    """Homography of a pair between `UNIT` frames; the identity if unknown."""
    if pair.homography is None:
        return torch.eye(3, dtype=torch.float64)
    query, candidate = (Frame(image_size(image), UNIT) for image in (pair.image_a, pair.image_b))
    return homographies_between_inputs(torch.from_numpy(pair.homography)[None], query, [candidate])[0]


def with_true_homographies(pairs: Sequence[TrainingPair], matches: Sequence[Matches], input_size: Size) -> MatchedPairs:
    """Pack pairs with known homographies, except those with too few matches."""
    truths = [true_between_units(pair) for pair in pairs]
    return _packed(matches, truths, [Kind.true] * len(pairs), input_size)


def with_fitted_homographies(matches: Sequence[Matches], input_size: Size, min_inliers: int) -> MatchedPairs:
    """Pack pairs of one place with MAGSAC's homographies, except those with too few inliers."""
    fitted = magsac_between_units(matches, input_size)
    agreeing = [
        (found, homography)
        for found, homography, valid in zip(matches, fitted.matrices, fitted.valid.tolist(), strict=True)
        if valid and count_inliers(found, homography, input_size) >= max(min_inliers, MIN_MATCHES)
    ]
    kept = [found for found, _ in agreeing]
    return _packed(kept, [homography for _, homography in agreeing], [Kind.fitted] * len(kept), input_size)


def with_nothing_in_common(matches: Sequence[Matches], input_size: Size) -> MatchedPairs:
    """Pack pairs of different places."""
    count = len(matches)
    return _packed(matches, [torch.eye(3, dtype=torch.float64)] * count, [Kind.none] * count, input_size)


def count_inliers(matches: Matches, between_units: Float64[Tensor, "3 3"], input_size: Size) -> int:
    """Count the matches within their tolerance under a homography: K of REI."""
    homography = resizing(UNIT, input_size) @ between_units @ resizing(input_size, UNIT)
    errors_px = reprojection_errors(homography, matches.query_points, matches.candidate_points)
    return int((errors_px < matches.tolerance_px).sum())


def different_partners(places: Sequence[frozenset[str]], share: float, first: int) -> Iterator[tuple[int, int]]:
    """Yield index pairs into `places` of a query and another pair's candidate that show different places.

    Args:
        places: places of each pair of the same extraction batch; see `TrainingPair.places`.
        share: average number of partners of each query.
        first: number of pairs before this batch.
    """
    wanted = [int((first + number + 1) * share) - int((first + number) * share) for number in range(len(places))]
    for query, count in enumerate(wanted):
        others = ((query + shift) % len(places) for shift in range(1, len(places)))
        different = [other for other in others if places[other].isdisjoint(places[query])]
        yield from ((query, other) for other in different[:count])


def padded_batch(points: Sequence[Float32[Tensor, "_ 5"]], tolerance: Float64[Tensor, "2"]) -> MatchBatch:
    """Pad the rows of pairs to a batch."""
    columns = pad_sequence(list(points), batch_first=True)
    lengths = torch.tensor([len(rows) for rows in points])
    return MatchBatch(
        columns[..., :2].double(),
        columns[..., 2:4].double(),
        columns[..., 4],
        torch.arange(columns.shape[1]) < lengths[:, None],
        tolerance.expand(len(points), 2),
    )


def starts_of(counts: Int64[Tensor, " pairs"]) -> list[int]:
    """Index of the first match of each pair, followed by the total number of matches."""
    return [0, *accumulate(counts.tolist())]


def _packed(
    matches: Sequence[Matches], homographies: Sequence[Tensor], kinds: Sequence[Kind], input_size: Size
) -> MatchedPairs:
    to_unit = resizing(input_size, UNIT)
    chosen = [row for row, found in enumerate(matches) if len(found.similarity) >= _MIN_MATCHES]
    return MatchedPairs.joined(
        [
            MatchedPairs(
                _rows(matches[row], to_unit),
                torch.tensor([len(matches[row].similarity)]),
                homographies[row][None],
                torch.tensor([int(kinds[row])]),
            )
            for row in chosen
        ]
    )


def _rows(matches: Matches, to_unit: Float64[Tensor, "3 3"]) -> Float32[Tensor, "matches 5"]:
    points = [project(to_unit, side.cpu()) for side in (matches.query_points, matches.candidate_points)]
    return torch.cat([*points, matches.similarity.cpu()[:, None].double()], dim=1).float()
