"""Where was this photo taken? Retrieve by global descriptor, verify by homography, rank by inliers."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from time import perf_counter

from vpr_dhe.candidates import Places, VerifiedIndex
from vpr_dhe.errors import BadInputError
from vpr_dhe.estimators import DEFAULT, NONE, Equipment, build_estimator
from vpr_dhe.estimators.base import View, match_by_grid
from vpr_dhe.features.base import Extractor
from vpr_dhe.features.extractor import load_extractor
from vpr_dhe.images import ImageLike, decode_image, require_image
from vpr_dhe.index.place_index import PlaceIndex, require_same_features
from vpr_dhe.index.search import Found
from vpr_dhe.models.network_file import NetworkFile
from vpr_dhe.position_fusion import fuse_positions
from vpr_dhe.records import (
    NOT_VERIFIED,
    Cameras,
    Features,
    Image,
    ImageRecord,
    Localization,
    RankedMatch,
    StartProgress,
    Timing,
    Verification,
    without_progress,
)
from vpr_dhe.sequences.frame_memory import FrameMemory
from vpr_dhe.sequences.frames import DropPolicy, SequenceFrame
from vpr_dhe.sequences.place_map import PlaceMap
from vpr_dhe.sequences.stream import LocalizedFrame, localize_frames
from vpr_dhe.sequences.tracker import PlaceTracker
from vpr_dhe.verification import Verifier, align

# Records that a map of places is read by: what is known of so many images is in memory at once.
_RECORDS = 4096


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


class Localizer:
    """Answers queries about places.

    Args:
        places: an index with a verifier, as `VerifiedIndex` makes one; `FrameMemory` for one that grows by frames.
        extractor: the one the index was made with.
        rerank: how many of the candidates are verified.
        cameras: of queries and indexed images, where estimates are to have headings.

    Raises:
        IndexFormatError: if the extractor is not the index's.
    """

    def __init__(
        self, places: Places, extractor: Extractor, *, rerank: int = 100, cameras: Cameras | None = None
    ) -> None:
        require_same_features(places.spec, extractor.spec)
        if rerank < 1:
            raise BadInputError(f"rerank is {rerank}; expected at least 1, or the verifier {NONE!r}")
        self.places, self.extractor, self.rerank, self.cameras = places, extractor, rerank, cameras

    @classmethod
    def open(
        cls,
        folder: Path,
        *,
        verifier: str = DEFAULT,
        rerank: int = 100,
        device: str = "cpu",
        model: str | None = None,
        networks: Mapping[str, NetworkFile] | None = None,
        cameras: Cameras | None = None,
    ) -> "Localizer":
        """Open an index with the model it was made with and a verifier by name.

        `model` says where the model has moved to; `networks` are for verifiers that have one of their own.
        """
        index = PlaceIndex.open(folder, gpu=device.startswith("cuda"))
        extractor = load_extractor(model or index.spec.model, device)
        built = build_verifier(verifier, Equipment(extractor, networks or {}, device))
        return cls(VerifiedIndex(index, built), extractor, rerank=rerank, cameras=cameras)

    def localize(self, image: ImageLike | Path | str, *, top_k: int = 5) -> Localization:
        """Find the `top_k` places most likely to show what this image shows, best first.

        Raises:
            ImageError: if `image` is a path that cannot be read, or cannot be made an image by `require_image`.
        """
        return self.localize_described(describe(self.extractor, image), top_k=top_k)

    def localize_described(self, query: DescribedQuery, *, top_k: int = 5) -> Localization:
        """Do what `localize` does for a query that the extractor has described, perhaps with others in one batch."""
        places = self.places.pinned()
        looked_at = self.rerank if places.verifies else 0
        found = search(places, query, max(top_k, looked_at))
        answer = rerank(places, found, self.rerank)
        known = places.images([candidate.id for candidate in answer.reranked])
        ranked = [candidate for candidate in answer.reranked if candidate.id in known.by_id]
        records = [known.by_id[candidate.id] for candidate in ranked]
        matches = [_ranked(rank, *found) for rank, found in enumerate(zip(ranked, records, strict=True), start=1)]
        return Localization(
            tuple(matches[:top_k]),
            answer.timing,
            tuple(sorted(answer.missing | known.missing)),
            fuse_positions(matches[:looked_at], records[:looked_at], cameras=self.cameras),
        )

    def place_map(self) -> PlaceMap:
        """The indexed images as places that a stream leads through; reads what is known of each of them.

        Raises:
            BadInputError: if the index is not one of this machine.
        """
        places = self.places
        if not isinstance(places, VerifiedIndex | FrameMemory):
            raise BadInputError("a stream needs an index of this machine, and this is one of shards; open it here")
        ids = places.ids
        chunks = (places.images(ids[start : start + _RECORDS]) for start in range(0, len(ids), _RECORDS))
        return PlaceMap(found for chunk in chunks for found in chunk.by_id.items())

    def stream(
        self,
        frames: Iterable[SequenceFrame | ImageLike | Path | str],
        *,
        tracker: PlaceTracker | None = None,
        drop: DropPolicy | None = None,
        top_k: int = 5,
    ) -> Iterator[LocalizedFrame]:
        """Localize frames one after the other, each in the light of those before it.

        Where the places are a `FrameMemory`, each frame becomes one of them once it is localized.

        Args:
            frames: in the order they were taken, perhaps without end; as for `localize`, or with what else is known.
            tracker: what is believed of the motion; by default along the order of the indexed images.
            drop: reads the frames in a thread of its own, as a live source needs it, and says what becomes of those
                that come while another is worked on.
            top_k: matches, of those that are verified, and places of each answer.

        Raises:
            BadInputError: where an argument, or a frame that is to be remembered, is none.
        """
        return localize_frames(
            frames,
            partial(describe, self.extractor),
            partial(self.localize_described, top_k=self.rerank),
            self.places,
            tracker or PlaceTracker(self.place_map()),
            drop=drop,
            top_k=top_k,
        )


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


def _ranked(rank: int, candidate: Candidate, record: ImageRecord) -> RankedMatch:
    return RankedMatch(
        rank,
        record.path,
        candidate.similarity,
        candidate.score,
        candidate.verification,
        record.position,
        id=candidate.id,
    )


def build_verifier(name: str, at_hand: Equipment) -> Verifier | None:
    """Build a verifier by the name of its estimator; `none` is None."""
    return None if name == NONE else Verifier(build_estimator(name, at_hand))


def build_verifiers(names: Iterable[str], at_hand: Equipment) -> dict[str, Verifier]:
    """Build several verifiers, by name; `none`, which every evaluation measures anyway, is left out."""
    built = {name: build_verifier(name, at_hand) for name in names}
    return {name: verifier for name, verifier in built.items() if verifier is not None}


def build_aligner(
    name: str,
    model: str | None = None,
    networks: Mapping[str, NetworkFile] | None = None,
    device: str = "cpu",
    *,
    start_progress: StartProgress = without_progress,
    max_seconds: float | None = None,
) -> Callable[[Image, Image], Verification]:
    """Build a function that aligns two images: by sparse keypoints, or by dense features if a model is named.

    A method that takes long tells `start_progress` of each pair, and gives up after `max_seconds` what is not done.

    Raises:
        VerifierError: if the method is unknown, needs a head or a network that is not given, or cannot stop early.
    """
    extractor = None if model is None else load_extractor(model, device)
    at_hand = Equipment(extractor, networks or {}, device, start_progress, max_seconds)
    verifier = Verifier(build_estimator(name, at_hand))
    return partial(align, verifier=verifier) if extractor is None else partial(_align_by_features, extractor, verifier)


def _align_by_features(extractor: Extractor, verifier: Verifier, query: Image, candidate: Image) -> Verification:
    described, other = extractor.extract([query])[0], extractor.extract([candidate])[0]
    matches_of = match_by_grid(described, other.local_map[None], extractor.spec)
    view = View(other.frame, lambda: candidate, lambda: other, partial(matches_of, 0))
    return verifier.verify(View(described.frame, lambda: query, lambda: described), [view])[0]
