"""Retrieval of candidates by global descriptor."""

from dataclasses import dataclass

from vpr_dhe.localization.database import PinnedDatabase
from vpr_dhe.records import Features, Verification


@dataclass(frozen=True)
class Candidate:
    """One retrieved image; `verification` is None without a verifier."""

    id: int
    similarity: float
    verification: Verification | None = None

    @property
    def score(self) -> float:
        """The verifier's score, or the similarity without a verifier."""
        return self.similarity if self.verification is None else self.verification.score


def retrieve(database: PinnedDatabase, features: Features, count: int) -> list[Candidate]:
    """Retrieve the `count` images with the most similar global descriptors, best first.

    Raises:
        IndexFormatError: if the database holds no images.
        ShardsMissingError: if shards fail to answer and the caller chose to fail then.
    """
    found = database.search(features.global_descriptor[None], count)
    return [Candidate(*pair) for pair in zip(found.ids[0].tolist(), found.similarities[0].tolist(), strict=True)]
