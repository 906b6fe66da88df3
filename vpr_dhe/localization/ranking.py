"""Ranking of candidates: verify, sort by the evidence, and turn into matches."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from vpr_dhe.index.manifest import AdaptationInfo
from vpr_dhe.localization.contrast import inlier_contrasts, robust_z_scores
from vpr_dhe.localization.database import PinnedDatabase
from vpr_dhe.localization.early_stop import parts, stands_out
from vpr_dhe.localization.retrieval import Candidate
from vpr_dhe.localization.shortlist import QueryImage
from vpr_dhe.records import NOT_VERIFIED, Features, ImageRecord, RankedMatch
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

    The other candidates follow in the order of retrieval. Candidates of missing shards are left out. With `stop_early`,
    no more are verified once the best stands out by this margin (see `early_stop`).
    """
    if not database.verifies:
        return list(candidates)
    count = min(count, len(candidates))
    weight = similarity_weight(database.adaptation)
    done, verified = 0, list[Candidate]()
    for part in [slice(count)] if stop_early is None else parts(count):
        done = part.stop
        found = database.verify(image, features, [candidate.id for candidate in candidates[part]])
        verified += [replace(one, verification=found[one.id]) for one in candidates[part] if one.id in found]
        if stop_early is not None and stands_out(ranked(verified, rank_by, weight), stop_early):
            break
    unverified = [replace(one, verification=NOT_VERIFIED) for one in candidates[done:]]
    return [*ranked(verified, rank_by, weight), *unverified]


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
    """Candidates with the contrast of their inliers plus `weight` times the contrast of their similarity.

    Most candidates are wrong, so the list itself tells how many inliers, and which similarity, chance gives on this map
    and for this query.
    """
    if not verified:
        return []
    inliers = inlier_contrasts([one.verification.inliers for one in verified if one.verification])
    similarities = robust_z_scores([one.similarity for one in verified], _MIN_SIMILARITY_DEVIATION)
    evidence = (inliers + weight * similarities).tolist()
    return [replace(one, evidence=value) for one, value in zip(verified, evidence, strict=True)]


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
