"""Ranking of candidates: verify, sort by the evidence, and turn into matches."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
from jaxtyping import Float64

from vpr_dhe.index.manifest import AdaptationInfo
from vpr_dhe.localization.contrast import Counts, inlier_contrasts, robust_z_scores
from vpr_dhe.localization.database import PinnedDatabase
from vpr_dhe.localization.early_stop import parts, stands_out
from vpr_dhe.localization.retrieval import Candidate
from vpr_dhe.localization.shortlist import QueryImage
from vpr_dhe.records import NOT_VERIFIED, Features, ImageRecord, RankedMatch, Verification
from vpr_dhe.runtime.choices import RankBy

SIMILARITY_WEIGHT = 0.3
"""Weight of the contrast of similarity beside that of inliers; docs/experiments/ranking.md compares others."""

ADAPTED_SIMILARITY_WEIGHT = 0.6
"""The same for similarities of vectors adapted to their map, which are more reliable: the map has tested them."""

# Smaller differences of cosines than this do not stand out, however alike the others are.
_MIN_SIMILARITY_DEVIATION = 0.01


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
    done, verified, unlikely = 0, list[Candidate](), list[Candidate]()
    for part in [slice(count)] if stop_early is None else parts(count, database.shortlist_size):
        done = part.stop
        shortlist, others = coarse_pass(database, features, candidates[part], weight)
        found = database.verify(image, features, [candidate.id for candidate in shortlist])
        verified += [replace(one, verification=found[one.id]) for one in shortlist if one.id in found]
        unlikely += others
        if stop_early is not None and stands_out(ranked(verified, rank_by, weight), stop_early):
            break
    unverified = [replace(one, verification=NOT_VERIFIED) for one in (*unlikely, *candidates[done:])]
    return [*ranked(verified, rank_by, weight), *unverified]


def coarse_pass(
    database: PinnedDatabase, features: Features, candidates: Sequence[Candidate], weight: float
) -> tuple[list[Candidate], list[Candidate]]:
    """Split candidates into those to verify, in the order of retrieval, and the others, most likely first.

    Those with the most evidence are verified: of matches that one shift explains, and of similarity. Candidates of
    missing shards are in neither, unless all are verified.
    """
    size = database.shortlist_size
    if size is None or len(candidates) <= size:
        return list(candidates), []
    votes = database.shift_votes(features, [one.id for one in candidates])
    present = [one for one in candidates if one.id in votes]
    evidence = _evidence([votes[one.id] for one in present], present, weight)
    best_first = np.argsort(-evidence, kind="stable").tolist()
    return [present[row] for row in sorted(best_first[:size])], [present[row] for row in best_first[size:]]


def similarity_weight(adaptation: AdaptationInfo | None) -> float:
    """Weight of similarity in the evidence, by the vectors that were searched."""
    return SIMILARITY_WEIGHT if adaptation is None else ADAPTED_SIMILARITY_WEIGHT


def ranked(verified: Sequence[Candidate], rank_by: RankBy, weight: float = SIMILARITY_WEIGHT) -> list[Candidate]:
    """Sort verified candidates of one query, which are in the order of retrieval, by their score or by evidence.

    `weight` is that of similarity in the evidence.
    """
    if rank_by == "evidence":
        verified = _with_evidence(verified, weight)
    return sorted(verified, key=lambda candidate: -candidate.rank_value)


def _with_evidence(verified: Sequence[Candidate], weight: float) -> list[Candidate]:
    """Candidates with the contrast of their weighted inliers plus `weight` times the contrast of their similarity.

    Most candidates are wrong, so the list itself tells how many inliers, and which similarity, chance gives on this map
    and for this query.
    """
    inliers = weighted_inliers([one.verification for one in verified if one.verification])
    evidence = _evidence(inliers, verified, weight).tolist()
    return [replace(one, evidence=value) for one, value in zip(verified, evidence, strict=True)]


def weighted_inliers(verifications: Sequence[Verification]) -> Float64[np.ndarray, " candidates"]:
    """Inliers of the candidates of one query, each counted by the square of its similarity; the mean weight is 1.

    Matches that chance makes are less similar; docs/experiments/ranking.md compares other weights.
    """
    inliers = np.array([one.inliers for one in verifications], np.float64)
    weights = np.array([one.inlier_weight for one in verifications])
    total = float(inliers @ weights)
    return inliers * weights * (inliers.sum() / total) if total > 0 else inliers


def _evidence(counts: Counts, candidates: Sequence[Candidate], weight: float) -> Float64[np.ndarray, " candidates"]:
    if not candidates:
        return np.empty(0)
    similarities = robust_z_scores([one.similarity for one in candidates], _MIN_SIMILARITY_DEVIATION)
    return inlier_contrasts(counts) + weight * similarities


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
