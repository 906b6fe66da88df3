"""One query, step by step: described, searched for, re-ranked by its verifier."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from time import perf_counter

from vpr_dhe.candidates import Places
from vpr_dhe.features.base import Extractor
from vpr_dhe.images import ImageLike, decode_image, require_image
from vpr_dhe.index.search import Found
from vpr_dhe.records import NOT_VERIFIED, Features, Image, ImageRecord, RankedMatch, Timing, Verification


@dataclass(frozen=True)
class Candidate:
    """One retrieved image; `verification` is None where it was not verified."""

    id: int
    similarity: float
    verification: Verification | None = None

    @property
    def score(self) -> float:
        """The verifier's score, or the similarity where nothing was verified."""
        return self.similarity if self.verification is None else self.verification.score


@dataclass(frozen=True)
class Ranking:
    """The candidates of one query in the final order, best first; `missing` names the shards that did not answer."""

    reranked: tuple[Candidate, ...]
    timing: Timing
    missing: frozenset[str] = frozenset()


@dataclass(frozen=True)
class DescribedQuery:
    """One query and its features, and the wall-clock milliseconds that decoding and describing it took."""

    image: Image
    features: Features
    extract_ms: float


@dataclass(frozen=True)
class Retrieval:
    """One query described, and the candidates that its global descriptor found, best first.

    `missing` names the shards that did not answer.
    """

    image: Image
    features: Features
    candidates: tuple[Candidate, ...]
    extract_ms: float
    search_ms: float
    missing: frozenset[str]


def retrieve(places: Places, extractor: Extractor, image: ImageLike | Path | str, count: int) -> Retrieval:
    """Describe an image and retrieve `count` candidates.

    Raises:
        ImageError: if `image` is a path that cannot be read, or cannot be made an image by `require_image`.
    """
    return search(places, describe(extractor, image), count)


def describe(extractor: Extractor, image: ImageLike | Path | str) -> DescribedQuery:
    """Decode and describe one image; errors as for `retrieve`."""
    started = perf_counter()
    decoded = decode_image(Path(image)) if isinstance(image, (str, Path)) else require_image(image)
    features = extractor.extract([decoded])[0]
    return DescribedQuery(decoded, features, 1e3 * (perf_counter() - started))


def search(places: Places, query: DescribedQuery, count: int) -> Retrieval:
    """Retrieve `count` candidates by global descriptor."""
    started = perf_counter()
    found = places.search(query.features.global_descriptor[None], count)
    candidates = _candidates(found)
    search_ms = 1e3 * (perf_counter() - started)
    return Retrieval(query.image, query.features, candidates, query.extract_ms, search_ms, found.missing)


def rerank(places: Places, retrieval: Retrieval, count: int) -> Ranking:
    """Verify the first `count` candidates and sort them by score; ties keep the order of retrieval.

    Candidates of shards that are missing are left out; those beyond the first `count` follow in the order of retrieval.
    """
    started = perf_counter()
    ordered, missing = _reranked(places, retrieval, count)
    timing = Timing(retrieval.extract_ms, retrieval.search_ms, 1e3 * (perf_counter() - started))
    return Ranking(ordered, timing, retrieval.missing | missing)


def _reranked(places: Places, retrieval: Retrieval, count: int) -> tuple[tuple[Candidate, ...], frozenset[str]]:
    if not places.verifies:
        return retrieval.candidates, frozenset()
    chosen, rest = retrieval.candidates[:count], retrieval.candidates[count:]
    results = places.verify(retrieval.image, retrieval.features, [candidate.id for candidate in chosen])
    verified = [
        replace(candidate, verification=results.by_id[candidate.id])
        for candidate in chosen
        if candidate.id in results.by_id
    ]
    unverified = [replace(candidate, verification=NOT_VERIFIED) for candidate in rest]
    return (*sorted(verified, key=lambda candidate: -candidate.score), *unverified), results.missing


def _candidates(found: Found) -> tuple[Candidate, ...]:
    return tuple(
        Candidate(int(id), float(similarity))
        for id, similarity in zip(found.ids[0], found.similarities[0], strict=True)
    )


def ranked_matches(candidates: Sequence[Candidate], known: Mapping[int, ImageRecord]) -> list[RankedMatch]:
    """Candidates, best first, as matches: those of which it is known what images they are."""
    return [
        RankedMatch(
            rank,
            known[one.id].path,
            one.similarity,
            one.score,
            one.verification,
            known[one.id].position,
            id=one.id,
        )
        for rank, one in enumerate((one for one in candidates if one.id in known), start=1)
    ]
