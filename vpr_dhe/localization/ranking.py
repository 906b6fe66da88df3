"""Ranking of candidates: verify, sort by score, and turn into matches."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from vpr_dhe.localization.database import PinnedDatabase
from vpr_dhe.localization.retrieval import Candidate
from vpr_dhe.records import NOT_VERIFIED, Features, Image, ImageRecord, RankedMatch


def rerank(
    database: PinnedDatabase, image: Image, features: Features, candidates: Sequence[Candidate], count: int
) -> list[Candidate]:
    """Verify the first `count` candidates and sort them by score; ties keep the order of retrieval.

    The other candidates follow in the order of retrieval. Candidates of missing shards are left out.
    """
    if not database.verifies:
        return list(candidates)
    chosen, rest = candidates[:count], candidates[count:]
    found = database.verify(image, features, [candidate.id for candidate in chosen])
    verified = [replace(one, verification=found[one.id]) for one in chosen if one.id in found]
    unverified = [replace(one, verification=NOT_VERIFIED) for one in rest]
    return [*sorted(verified, key=lambda candidate: -candidate.score), *unverified]


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
        )
        for rank, one in enumerate((one for one in candidates if one.id in records), start=1)
    ]
