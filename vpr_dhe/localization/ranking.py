"""Ranking of candidates: verify, sort by the evidence, and turn into matches."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

import numpy as np
from jaxtyping import Float64

from vpr_dhe.errors import BadInputError
from vpr_dhe.index.manifest import AdaptationInfo
from vpr_dhe.localization.candidate_maps import QueryImage
from vpr_dhe.localization.coarse_pass import most_likely
from vpr_dhe.localization.database import PinnedDatabase
from vpr_dhe.localization.early_stop import parts, stands_out
from vpr_dhe.localization.retrieval import Candidate
from vpr_dhe.localization.robust_scores import CHANCE_QUANTILE, MEDIAN, inlier_contrasts, similarity_contrasts
from vpr_dhe.records import NOT_VERIFIED, Features, ImageRecord, RankedMatch, Verification
from vpr_dhe.runtime.choices import RankBy
from vpr_dhe.verification.names import NO_VERIFIER

SIMILARITY_WEIGHT = 0.3
"""Weight of the contrast of similarity beside that of inliers; docs/experiments/ranking.md compares others."""

ADAPTED_SIMILARITY_WEIGHT = 0.6
"""The same for similarities of vectors adapted to their map, which are more reliable: the map has tested them."""


def require_rerank(count: int) -> None:
    """Raise BadInputError unless at least one candidate is to be verified."""
    if count < 1:
        raise BadInputError(f"rerank is {count}; expected at least 1 (the verifier {NO_VERIFIER!r} verifies none)")


def rerank(
    database: PinnedDatabase,
    image: QueryImage,
    features: Features,
    candidates: Sequence[Candidate],
    count: int,
    rank_by: RankBy = "inliers",
    *,
    stop_early: float | None = None,
) -> list[Candidate]:
    """Verify the first `count` candidates and sort them; ties keep the order of retrieval.

    Where these are many, a coarse pass selects those to verify (`PinnedDatabase.shortlist_size`), and the others follow
    by it; then those beyond `count`, in the order of retrieval. Candidates of missing shards are left out. With
    `stop_early`, no more are verified once the best stands out by this margin (see `early_stop`).
    """
    if not database.verifies:
        return list(candidates)
    count = min(count, len(candidates))
    weight = similarity_weight(database.adaptation)
    first, beyond = candidates[:count], _not_verified(candidates[count:])
    verified, unlikely, found = list[Candidate](), list[Candidate](), list[Candidate]()
    for part in [slice(count)] if stop_early is None else parts(count, database.shortlist_size):
        chosen, others = make_shortlist(database, features, first[part], weight)
        verifications = database.verify(image, features, [candidate.id for candidate in chosen])
        verified += [replace(one, verification=verifications[one.id]) for one in chosen if one.id in verifications]
        unlikely += others
        found = ranked([*verified, *_not_verified([*unlikely, *first[part.stop :]])], rank_by, weight)
        if stop_early is not None and stands_out(found, stop_early):
            break
    return [*found, *beyond]


def _not_verified(candidates: Iterable[Candidate]) -> list[Candidate]:
    return [replace(one, verification=NOT_VERIFIED) for one in candidates]


def make_shortlist(
    database: PinnedDatabase, features: Features, candidates: Sequence[Candidate], weight: float
) -> tuple[list[Candidate], list[Candidate]]:
    """Split candidates into those to verify, in the order of retrieval, and the others, most likely first.

    A coarse pass selects those to verify, unless they are few. Candidates of missing shards are in neither, unless all
    are verified.
    """
    size = database.shortlist_size
    if size is None or len(candidates) <= size:
        return list(candidates), []
    votes = database.shift_votes(features, [one.id for one in candidates])
    present = [one for one in candidates if one.id in votes]
    chosen, others = most_likely([votes[one.id] for one in present], [one.similarity for one in present], size, weight)
    return [present[row] for row in chosen], [present[row] for row in others]


def similarity_weight(adaptation: AdaptationInfo | None) -> float:
    """Weight of similarity in the evidence, by the vectors that were searched."""
    return SIMILARITY_WEIGHT if adaptation is None else ADAPTED_SIMILARITY_WEIGHT


def ranked(candidates: Sequence[Candidate], rank_by: RankBy, weight: float = SIMILARITY_WEIGHT) -> list[Candidate]:
    """Sort the verified ones among candidates of one query by their score or by evidence; ties stay as they are.

    Those left out by the coarse pass follow, in their order. `weight` is that of similarity in the evidence.
    """
    verified, others = list[Candidate](), list[Candidate]()
    for one in candidates:
        (verified if _was_verified(one) else others).append(one)
    if rank_by == "evidence":
        verified = _with_evidence(verified, others, weight)
    return [*sorted(verified, key=lambda candidate: -candidate.rank_value), *others]


def _was_verified(candidate: Candidate) -> bool:
    return candidate.verification is not None and candidate.verification.attempted


def _with_evidence(verified: Sequence[Candidate], others: Sequence[Candidate], weight: float) -> list[Candidate]:
    """Candidates with the contrast of their weighted inliers plus `weight` times the contrast of their similarity.

    Most candidates are wrong, so the list itself tells how many inliers, and which similarity, chance gives on this map
    and for this query. Of those that a coarse pass selected most may be right: then chance is the lower quartile.
    """
    inliers = weighted_inliers([one.verification for one in verified if one.verification])
    contrasts = inlier_contrasts(inliers, CHANCE_QUANTILE if others else MEDIAN)
    similarities = similarity_contrasts([one.similarity for one in (*verified, *others)])
    evidence = contrasts + weight * similarities[: len(verified)]
    return [replace(one, evidence=value) for one, value in zip(verified, evidence.tolist(), strict=True)]


def weighted_inliers(verifications: Sequence[Verification]) -> Float64[np.ndarray, " candidates"]:
    """Inliers of the candidates of one query, each counted by the square of its similarity; the mean weight is 1.

    Matches that chance makes are less similar; docs/experiments/ranking.md compares other weights.
    """
    inliers = np.array([one.inliers for one in verifications], np.float64)
    weights = np.array([one.inlier_weight for one in verifications])
    total = float(inliers @ weights)
    return inliers * weights * (inliers.sum() / total) if total > 0 else inliers


def ranked_matches(candidates: Sequence[Candidate], records: Mapping[int, ImageRecord]) -> list[RankedMatch]:
    """Turn candidates, best first, into matches; candidates without a record are left out."""
    return [
        RankedMatch(
            rank,
            records[one.id].path,
            one.similarity,
            one.score,
            one.verification,
            records[one.id].position,
            id=one.id,
            evidence=one.evidence,
            similarity_extracted=one.similarity_extracted,
            heading_deg=records[one.id].heading_deg,
        )
        for rank, one in enumerate((one for one in candidates if one.id in records), start=1)
    ]
