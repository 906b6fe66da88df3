"""Retrieval of candidates by global descriptor."""

from dataclasses import dataclass

from vpr_dhe.localization.database import PinnedDatabase
from vpr_dhe.records import Features, Verification


@dataclass(frozen=True)
class Candidate:
    """One retrieved image; `verification` is None without a verifier.

    `similarity` is what the search ranked by, `similarity_extracted` that of the descriptors as extracted; `evidence`
    is what verified candidates are ranked by, if that is not the score alone.
    """

    id: int
    similarity: float
    similarity_extracted: float
    verification: Verification | None = None
    evidence: float | None = None

    @property
    def score(self) -> float:
        """The verifier's score, or the similarity without a verifier."""
        return self.similarity if self.verification is None else self.verification.score

    @property
    def rank_value(self) -> float:
        """The evidence, or the score where candidates are ranked by that."""
        return self.score if self.evidence is None else self.evidence


def retrieve(database: PinnedDatabase, features: Features, count: int) -> list[Candidate]:
    """Retrieve the `count` images with the most similar global descriptors, best first.

    Raises:
        IndexFormatError: if the database holds no images.
        ShardsMissingError: if shards fail to answer and the caller chose to fail then.
    """
    code = None if features.code is None else features.code[None]
    found = database.search(features.global_descriptor[None], count, code)
    extracted = found.similarities if found.extracted is None else found.extracted
    columns = (found.ids[0].tolist(), found.similarities[0].tolist(), extracted[0].tolist())
    return [Candidate(*row) for row in zip(*columns, strict=True)]
