"""Where was this photo taken? Retrieve by global descriptor, verify by homography, rank by inliers."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from time import perf_counter

from vpr_dhe.errors import BadInputError
from vpr_dhe.estimators import DEFAULT, NONE, build_estimator
from vpr_dhe.estimators.base import View, match_by_grid
from vpr_dhe.features.base import Extractor
from vpr_dhe.features.extractor import load_extractor
from vpr_dhe.images import decode_image, require_image
from vpr_dhe.index.place_index import PlaceIndex
from vpr_dhe.records import NOT_VERIFIED, Features, Image, Localization, RankedMatch, Timing, Verification
from vpr_dhe.verification import Verifier, align


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
    """The candidates of one query in the order of retrieval and in the final order, best first."""

    retrieved: tuple[Candidate, ...]
    reranked: tuple[Candidate, ...]
    timing: Timing


class Localizer:
    """Answers queries from an index.

    Args:
        index: the places.
        extractor: the one the index was made with.
        verifier: None leaves candidates in the order of retrieval.
        rerank: how many of the candidates are verified.

    Raises:
        IndexFormatError: if the extractor is not the index's.
    """

    def __init__(
        self, index: PlaceIndex, extractor: Extractor, verifier: Verifier | None, *, rerank: int = 100
    ) -> None:
        index.require(extractor.spec)
        if rerank < 1:
            raise BadInputError(f"rerank is {rerank}; expected at least 1, or the verifier {NONE!r}")
        self.index, self.extractor, self.verifier, self.rerank = index, extractor, verifier, rerank

    @classmethod
    def open(
        cls, folder: Path, *, verifier: str = DEFAULT, rerank: int = 100, device: str = "cpu", model: str | None = None
    ) -> "Localizer":
        """Open an index with the model it was made with and a verifier by name; `model` says where it has moved to."""
        index = PlaceIndex.open(folder)
        extractor = load_extractor(model or index.spec.model, device)
        return cls(index, extractor, build_verifier(verifier, extractor), rerank=rerank)

    def localize(self, image: Image | Path | str, *, top_k: int = 5) -> Localization:
        """Find the `top_k` places most likely to show what this image shows, best first.

        Raises:
            ImageError: if `image` is a path that cannot be read, or an array that is no 8-bit RGB image.
        """
        answer = self.rank(image, max(top_k, self.rerank if self.verifier else 0))
        ranked = [self._ranked(rank, candidate) for rank, candidate in enumerate(answer.reranked[:top_k], start=1)]
        return Localization(tuple(ranked), answer.timing)

    def rank(self, image: Image | Path | str, count: int) -> Ranking:
        """Retrieve `count` candidates and re-rank the first `rerank` of them: both orders, as evaluation needs them."""
        started = perf_counter()
        decoded = decode_image(Path(image)) if isinstance(image, (str, Path)) else require_image(image)
        query = self.extractor.extract([decoded])[0]
        extracted = perf_counter()
        retrieved = self._retrieve(query, count)
        searched = perf_counter()
        reranked = self._rerank(decoded, query, retrieved, self.verifier) if self.verifier else retrieved
        finished = perf_counter()
        timing = Timing(
            *(1000 * seconds for seconds in (extracted - started, searched - extracted, finished - searched))
        )
        return Ranking(tuple(retrieved), tuple(reranked), timing)

    def _retrieve(self, query: Features, count: int) -> list[Candidate]:
        found = self.index.search(query.global_descriptor[None], count)
        return [
            Candidate(int(id), float(similarity))
            for id, similarity in zip(found.rows[0], found.similarities[0], strict=True)
        ]

    def _rerank(
        self, image: Image, query: Features, retrieved: Sequence[Candidate], verifier: Verifier
    ) -> list[Candidate]:
        """Sort the verified candidates by score; the sort is stable, so ties keep the order of retrieval."""
        verified, rest = retrieved[: self.rerank], retrieved[self.rerank :]
        views = self._views(query, [candidate.id for candidate in verified])
        results = verifier.verify(View(query.frame, lambda: image, lambda: query), views)
        scored = [replace(candidate, verification=result) for candidate, result in zip(verified, results, strict=True)]
        unverified = [replace(candidate, verification=NOT_VERIFIED) for candidate in rest]
        return sorted(scored, key=lambda candidate: -candidate.score) + unverified

    def _views(self, query: Features, ids: Sequence[int]) -> list[View]:
        """Views of indexed images; their maps are read and matched together, their pixels only when asked for."""
        spec = self.index.spec
        maps = self.index.local_maps(ids).to(query.local_map.device)
        matches_of = match_by_grid(query, maps, spec)
        descriptors = self.index.descriptors(ids)
        frames = [self.index.frame(id) for id in ids]
        return [
            View(
                frames[place],
                image=partial(decode_image, self.index.image_path(id)),
                features=partial(Features, descriptors[place], maps[place], spec.grid, frames[place]),
                matches=partial(matches_of, place),
            )
            for place, id in enumerate(ids)
        ]

    def _ranked(self, rank: int, candidate: Candidate) -> RankedMatch:
        record = self.index.image(candidate.id)
        return RankedMatch(
            rank, record.path, candidate.similarity, candidate.score, candidate.verification, record.position
        )


def build_verifier(name: str, extractor: Extractor) -> Verifier | None:
    """Build a verifier by the name of its estimator; `none` is None."""
    return None if name == NONE else Verifier(build_estimator(name, extractor.model_file))


def build_aligner(name: str, model: str | None) -> Callable[[Image, Image], Verification]:
    """Build a function that aligns two images: by sparse keypoints, or by dense features if a model is named.

    Raises:
        VerifierError: if the method is unknown, or needs a head and there is no model that holds one.
    """
    if model is None:
        return partial(align, verifier=Verifier(build_estimator(name, None)))
    extractor = load_extractor(model)
    return partial(_align_by_features, extractor, Verifier(build_estimator(name, extractor.model_file)))


def _align_by_features(extractor: Extractor, verifier: Verifier, query: Image, candidate: Image) -> Verification:
    described, other = extractor.extract([query])[0], extractor.extract([candidate])[0]
    matches_of = match_by_grid(described, other.local_map[None], extractor.spec)
    view = View(other.frame, lambda: candidate, lambda: other, partial(matches_of, 0))
    return verifier.verify(View(described.frame, lambda: query, lambda: described), [view])[0]
