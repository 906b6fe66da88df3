"""Localization of the frames of a sequence, each in the light of its predecessors."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from vpr_dhe.errors import BadInputError, ImageError, IndexFormatError
from vpr_dhe.images.loading import ImageLike, load_image
from vpr_dhe.localization.database import PinnedDatabase
from vpr_dhe.localization.localizer import Localizer
from vpr_dhe.records import Belief, Image, ImageRecord, Localization, PlaceBelief
from vpr_dhe.runtime.stopwatch import Stopwatch
from vpr_dhe.sequences.bayes_filter import FilterSettings
from vpr_dhe.sequences.frame_gaps import Pace
from vpr_dhe.sequences.frame_memory import FrameMemory
from vpr_dhe.sequences.frames import DropPolicy, SequenceFrame, read_live
from vpr_dhe.sequences.likelihood import CalibratedLikelihood
from vpr_dhe.sequences.motion import MotionModel
from vpr_dhe.sequences.place_map import PlaceMap
from vpr_dhe.sequences.tracker import PlaceTracker

# Records held in memory at once while a map is read.
_RECORDS_AT_ONCE = 4096


@dataclass(frozen=True)
class LocalizedFrame:
    """Result for one frame of a stream.

    Args:
        number: position in the source from 0, dropped frames included.
        name: of the frame.
        timestamp_s: of the frame.
        dropped: number of frames dropped since the previous one.
        localization: matches of the frame alone; None if it cannot be read.
        belief: probable places given all frames so far; None if the frame cannot be read.
        error: reason why the frame cannot be read.
    """

    number: int
    name: str | None
    timestamp_s: float | None
    dropped: int
    localization: Localization | None = None
    belief: Belief | None = None
    error: str | None = None


class SequenceLocalizer:
    """Tracks a camera through the places of an index by a Bayes filter over single-frame results.

    Args:
        localizer: over an index on this machine, without an early stop.
        memory: the localizer's database, if that is a frame memory; each frame is appended to it once it is localized.

    Raises:
        BadInputError: if the localizer stops early, or its database is another frame memory than `memory`.
    """

    def __init__(self, localizer: Localizer, memory: FrameMemory | None = None) -> None:
        require_all_verified(localizer.stop_early)
        if memory is not None and memory is not localizer.database:
            raise BadInputError("the frame memory is not the database of the localizer; use Localizer(memory, ...)")
        if memory is None and isinstance(localizer.database, FrameMemory):
            raise BadInputError("the localizer searches a frame memory; give it here, too, so that frames are appended")
        self.localizer, self._memory = localizer, memory

    def place_map(self) -> PlaceMap:
        """Map of the indexed images in the order of their route; reads the record of every image.

        Raises:
            BadInputError: if the index is sharded.
            IndexFormatError: if it holds no images, and there is no memory.
        """
        database = self.localizer.database.pinned()
        ids, newest = database.image_ids(), self._memory.appended if self._memory else []
        if not ids and self._memory is None:
            raise IndexFormatError(
                f"index {self.localizer.index.folder} holds no images; add some with `vpr-dhe index`"
            )
        return PlaceMap(_records(database, ids[: len(ids) - len(newest)]), _records(database, newest))

    def tracker(
        self, places: PlaceMap, motion: MotionModel | None = None, *, settings: FilterSettings | None = None
    ) -> PlaceTracker:
        """Build a tracker over these places; on a calibrated index, probabilities of matches count as evidence.

        Those of a default calibration do not: it is too coarse to multiply over frames.

        Args:
            places: from `place_map`.
            motion: motion model; along the order of the indexed images by default.
            settings: of the filter.
        """
        calibration = self.localizer.calibration
        own = calibration is not None and self.localizer.calibration_source == "index"
        likelihood = CalibratedLikelihood(calibration.right_share) if calibration and own else None
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
        """Localize frames one after the other.

        Args:
            frames: in chronological order; may be endless.
            tracker: with a motion model; along the order of the indexed images by default.
            settings: of the filter; only without `tracker`.
            drop: reads the frames in a background thread, as live sources need, and handles those that arrive while
                another is being processed.
            top_k: number of matches and of places per frame; matches are limited to the verified ones.

        Raises:
            BadInputError: if an argument is invalid, or a frame to be appended to the memory has no usable name.
        """
        if tracker is not None and settings is not None:
            raise BadInputError("both a tracker and filter settings were given; give the settings to the tracker")
        return self._stream(frames, tracker or self.tracker(self.place_map(), settings=settings), drop, top_k)

    def _stream(
        self,
        frames: Iterable[SequenceFrame | ImageLike | Path | str],
        tracker: PlaceTracker,
        drop: DropPolicy | None,
        top_k: int,
    ) -> Iterator[LocalizedFrame]:
        source = map(_as_frame, frames)
        pace = Pace()
        unread: SequenceFrame | None = None
        number = -1
        for taken in source if drop is None else read_live(source, drop):
            number += 1 + taken.dropped
            localized = LocalizedFrame(number, _name(taken), taken.timestamp_s, taken.dropped)
            frame = taken if unread is None else taken.after(unread)
            try:
                image = load_image(frame.read(), self.localizer.grey_levels, max_pixels=self.localizer.max_pixels)
            except ImageError as error:
                unread = frame
                yield replace(localized, error=str(error))
                continue
            unread = None
            answer = self._localize(frame, image, tracker, pace)
            answer = replace(answer, matches=answer.matches[:top_k])
            yield replace(localized, localization=answer, belief=self._belief(tracker, top_k))

    def _localize(self, frame: SequenceFrame, image: Image, tracker: PlaceTracker, pace: Pace) -> Localization:
        """Localize one frame, update the tracker, and append the frame if there is a memory."""
        localizer, memory = self.localizer, self._memory
        clock = Stopwatch()
        features = localizer.extractor.extract([image])[0]
        if memory:
            memory.follow(frame.timestamp_s)
        answer = localizer.localize_features(image, features, top_k=localizer.rerank, extract_ms=clock.lap_ms())
        # The candidates of a blank frame are no evidence; not even that they were listed.
        evidence = () if answer.blank else answer.matches
        tracker.follow(evidence, pace.step_to(frame), len(tracker.places) - (memory.recent if memory else 0))
        if memory:
            tracker.places.append(memory.append(frame, image, features))
        return answer

    def _belief(self, tracker: PlaceTracker, count: int) -> Belief:
        likeliest = tracker.likeliest(count)
        records = self.localizer.database.pinned().records([id for id, _ in likeliest])
        believed = [PlaceBelief(records[id].path, chance, records[id].position) for id, chance in likeliest]
        return Belief(tuple(believed), tracker.unknown)


def require_all_verified(stop_early: float | None) -> None:
    """Raise BadInputError if verification stops early: a frame's belief is about all of its candidates."""
    if stop_early is not None:
        raise BadInputError(
            f"the belief of a sequence needs all candidates verified, and --stop-early is {stop_early:g}; leave it out"
        )


def _as_frame(frame: SequenceFrame | ImageLike | Path | str) -> SequenceFrame:
    if isinstance(frame, SequenceFrame):
        return frame
    return SequenceFrame(Path(frame) if isinstance(frame, str) else frame)


def _name(frame: SequenceFrame) -> str | None:
    return str(frame.image) if frame.name is None and isinstance(frame.image, Path) else frame.name


def _records(database: PinnedDatabase, ids: Sequence[int]) -> Iterator[tuple[int, ImageRecord]]:
    chunks = (ids[start : start + _RECORDS_AT_ONCE] for start in range(0, len(ids), _RECORDS_AT_ONCE))
    return (found for chunk in chunks for found in database.records(chunk).items())
