"""Where was this photo taken? Retrieve by global descriptor, verify by homography, rank by inliers."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from vpr_dhe.calibration.probability import Calibration, Conditions
from vpr_dhe.calibration.stored import read_calibration
from vpr_dhe.candidates import Places, VerifiedIndex
from vpr_dhe.errors import BadInputError, IndexDamagedError, IndexFormatError
from vpr_dhe.estimators import DEFAULT, NONE, Equipment
from vpr_dhe.features.base import Extractor
from vpr_dhe.features.extractor import load_extractor
from vpr_dhe.images import ImageLike
from vpr_dhe.index.place_index import PlaceIndex, require_same_features
from vpr_dhe.models.network_file import NetworkFile
from vpr_dhe.position_fusion import fuse_positions
from vpr_dhe.records import Cameras, ImageRecord, Localization
from vpr_dhe.retrieval import DescribedQuery, describe, ranked_matches, rerank, search
from vpr_dhe.sequences.filter import FilterSettings
from vpr_dhe.sequences.frame_memory import FrameMemory
from vpr_dhe.sequences.frames import DropPolicy, SequenceFrame
from vpr_dhe.sequences.likelihood import CalibratedLikelihood
from vpr_dhe.sequences.motion import MotionModel
from vpr_dhe.sequences.place_map import PlaceMap
from vpr_dhe.sequences.stream import LocalizedFrame, localize_frames
from vpr_dhe.sequences.tracker import PlaceTracker
from vpr_dhe.verifiers import build_verifier

# Records that a map of places is read by: what is known of so many images is in memory at once.
_RECORDS = 4096


class Localizer:
    """Answers queries about places.

    Queries that ask for no probability need no calibration: where `open` finds one that cannot be used, it leaves the
    error in `calibration_fault` and goes on without.

    Args:
        places: an index with a verifier, as `VerifiedIndex` makes one; `FrameMemory` for one that grows by frames.
        extractor: the one the index was made with.
        rerank: how many of the candidates are verified.
        cameras: of queries and indexed images, where estimates are to have headings.
        calibration: turns what speaks for the best match into a probability; fitted for this extractor and verifier and
            for as many candidates, as `read_calibration` finds one.

    Raises:
        IndexFormatError: if the extractor is not the index's.
        BadInputError: if the calibration is for another extractor, or other candidates.
    """

    def __init__(
        self,
        places: Places,
        extractor: Extractor,
        *,
        rerank: int = 100,
        cameras: Cameras | None = None,
        calibration: Calibration | None = None,
    ) -> None:
        require_same_features(places.spec, extractor.spec)
        if rerank < 1:
            raise BadInputError(f"rerank is {rerank}; expected at least 1, or the verifier {NONE!r}")
        if calibration is not None:
            calibration.conditions.require(extractor.spec.fingerprint, rerank)
            if (calibration.conditions.verifier == NONE) == places.verifies:
                raise BadInputError(
                    f"the calibration is for the verifier {calibration.conditions.verifier!r}, and the places have "
                    f"{'one' if places.verifies else 'none'}; use that, or calibrate again"
                )
        self.places, self.extractor, self.rerank = places, extractor, rerank
        self.cameras, self.calibration = cameras, calibration
        self.calibration_fault: IndexDamagedError | IndexFormatError | None = None

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

        Raises:
            IndexFormatError, IndexDamagedError: if the index cannot be read.
            ModelError, VerifierError: if model or verifier are unknown, or do not fit each other.
        """
        index = PlaceIndex.open(folder, gpu=device.startswith("cuda"))
        extractor = load_extractor(model or index.spec.model, device)
        at_hand = Equipment(extractor, networks or {}, device)
        places = VerifiedIndex(index, build_verifier(verifier, at_hand))
        conditions = Conditions.of(index.manifest, verifier, rerank, at_hand)
        calibration, fault = None, None
        try:
            calibration = read_calibration(folder, conditions)
        except (IndexDamagedError, IndexFormatError) as error:
            fault = error
        localizer = cls(places, extractor, rerank=rerank, cameras=cameras, calibration=calibration)
        localizer.calibration_fault = fault
        return localizer

    def localize(
        self, image: ImageLike | Path | str, *, top_k: int = 5, min_probability: float | None = None
    ) -> Localization:
        """Find the `top_k` places most likely to show what this image shows, best first.

        With `min_probability`, a best match that is less likely to be right is rejected: the place counts as unknown,
        and there are no matches.

        Raises:
            ImageError: if `image` is a path that cannot be read, or cannot be made an image by `require_image`.
            BadInputError: with `min_probability`, if there is no calibration, or it is no probability.
            IndexDamagedError, IndexFormatError: with `min_probability`, if the calibration cannot be used.
        """
        described = describe(self.extractor, image)
        return self.localize_described(described, top_k=top_k, min_probability=min_probability)

    def localize_described(
        self, query: DescribedQuery, *, top_k: int = 5, min_probability: float | None = None
    ) -> Localization:
        """Do what `localize` does for a query that the extractor has described, perhaps with others in one batch."""
        if min_probability is not None:
            self.require_calibration()
            if not 0 <= min_probability <= 1:
                raise BadInputError(f"the least probability asked for is {min_probability}; expected 0 to 1")
        places = self.places.pinned()
        considered = max(top_k, self.rerank if places.verifies or self.calibration else 0)
        answer = rerank(places, search(places, query, considered), self.rerank)
        known = places.images([candidate.id for candidate in answer.reranked])
        ranked = [candidate for candidate in answer.reranked if candidate.id in known.by_id]
        matches, missing = ranked_matches(ranked, known.by_id), answer.missing | known.missing
        estimate = None
        if places.verifies:
            verified = sum(candidate.id in known.by_id for candidate in answer.reranked[: self.rerank])
            records = [known.by_id[candidate.id] for candidate in ranked[:verified]]
            estimate = fuse_positions(matches[:verified], records, cameras=self.cameras)
        if self.calibration and not missing:
            matches = self.calibration.judged(matches)
        localization = Localization(tuple(matches[:top_k]), answer.timing, tuple(sorted(missing)), estimate)
        return localization if min_probability is None else _sure_enough(localization, min_probability)

    def require_calibration(self) -> None:
        """Raise BadInputError where there is no calibration for this, and IndexDamagedError where it is damaged."""
        if isinstance(self.calibration_fault, IndexFormatError):
            # What the caller asked for cannot be had; the index itself is of the right format.
            raise BadInputError(str(self.calibration_fault))
        if self.calibration_fault is not None:
            raise self.calibration_fault.with_traceback(None)
        if self.calibration is None:
            raise BadInputError(
                "a least probability was asked for, but the index is not calibrated for this model and verifier with "
                f"rerank {self.rerank}; run `vpr-dhe calibrate INDEX` with the same --verifier and --rerank, and "
                "again after `compact` with another --codec"
            )

    def place_map(self) -> PlaceMap:
        """The indexed images as places that a stream leads through; reads what is known of each of them.

        Raises:
            BadInputError: if the index is not one of this machine.
        """
        places = self.places
        if not isinstance(places, VerifiedIndex | FrameMemory):
            raise BadInputError("a stream needs an index of this machine, and this is one of shards; open it here")
        newest = places.remembered if isinstance(places, FrameMemory) else []
        others = places.ids[: len(places.ids) - len(newest)]
        return PlaceMap(_records(places, others), _records(places, newest))

    def tracker(
        self, places: PlaceMap, motion: MotionModel | None = None, *, settings: FilterSettings | None = None
    ) -> PlaceTracker:
        """What follows the places of a stream; probabilities count as the evidence they are, where there are any."""
        likelihood = None if self.calibration is None else CalibratedLikelihood(self.calibration.right_share)
        return PlaceTracker(places, motion, likelihood=likelihood, settings=settings)

    def stream(
        self,
        frames: Iterable[SequenceFrame | ImageLike | Path | str],
        *,
        tracker: PlaceTracker | None = None,
        settings: FilterSettings | None = None,
        drop: DropPolicy | None = None,
        top_k: int = 5,
    ) -> Iterator[LocalizedFrame]:
        """Localize frames one after the other, each in the light of those before it.

        Where the places are a `FrameMemory`, each frame becomes one of them once it is localized.

        Args:
            frames: in the order they were taken, perhaps without end; as for `localize`, or with what else is known.
            tracker: what is believed of the motion; by default along the order of the indexed images.
            settings: of the filter, where no tracker is given that has its own.
            drop: reads the frames in a thread of its own, as a live source needs it, and says what becomes of those
                that come while another is worked on.
            top_k: matches, of those that are verified, and places of each answer.

        Raises:
            BadInputError: where an argument, or a frame that is to be remembered, is none.
        """
        if tracker is not None and settings is not None:
            raise BadInputError("a tracker and settings of the filter were given; give the settings to the tracker")
        return localize_frames(
            frames,
            partial(describe, self.extractor),
            partial(self.localize_described, top_k=self.rerank),
            self.places,
            tracker or self.tracker(self.place_map(), settings=settings),
            drop=drop,
            top_k=top_k,
        )


def _records(places: Places, ids: Sequence[int]) -> Iterator[tuple[int, ImageRecord]]:
    chunks = (places.images(ids[start : start + _RECORDS]) for start in range(0, len(ids), _RECORDS))
    return (found for chunk in chunks for found in chunk.by_id.items())


def _sure_enough(localization: Localization, min_probability: float) -> Localization:
    """The same answer, or none where the best match is less probable; where shards are missing nobody knows."""
    best = localization.matches[0] if localization.matches else None
    if best is not None and best.probability is not None and best.probability >= min_probability:
        return replace(localization, known=True)
    return replace(localization, matches=(), rejected=best, estimate=None, known=False)
