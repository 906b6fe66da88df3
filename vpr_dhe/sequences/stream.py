"""A stream of frames, each localized in the light of those before it."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol, TypeVar, runtime_checkable

from vpr_dhe.candidates import Places
from vpr_dhe.errors import ImageError
from vpr_dhe.images import ImageLike
from vpr_dhe.records import Belief, Features, Image, Localization, PlaceBelief
from vpr_dhe.sequences.frame_memory import FrameMemory
from vpr_dhe.sequences.frames import DropPolicy, SequenceFrame, read_live
from vpr_dhe.sequences.pace import Pace
from vpr_dhe.sequences.tracker import PlaceTracker


@dataclass(frozen=True)
class LocalizedFrame:
    """One frame of a stream.

    `number` counts the frames of the source from 0, those that were dropped included; `dropped` were dropped since the
    one before, `dropped_so_far` since the beginning. A frame that cannot be read has an `error`, and no answer.
    """

    number: int
    name: str | None
    timestamp_s: float | None
    dropped: int
    dropped_so_far: int
    localization: Localization | None = None
    belief: Belief | None = None
    error: str | None = None


@runtime_checkable
class DescribedFrame(Protocol):
    """A frame's pixels and its features."""

    @property
    def image(self) -> Image:
        """The pixels."""
        ...

    @property
    def features(self) -> Features:
        """What an extractor made of them."""
        ...


Described = TypeVar("Described", bound=DescribedFrame)


def localize_frames(
    frames: Iterable[SequenceFrame | ImageLike | Path | str],
    describe: Callable[[ImageLike | Path], Described],
    localize: Callable[[Described], Localization],
    places: Places,
    tracker: PlaceTracker,
    *,
    drop: DropPolicy | None,
    top_k: int,
) -> Iterator[LocalizedFrame]:
    """Do what `Localizer.stream` says, by functions that describe a frame and find all of its candidates."""
    memory = places if isinstance(places, FrameMemory) else None
    source = map(_as_frame, frames)
    pace = Pace()
    unread: SequenceFrame | None = None
    number, dropped = -1, 0
    for taken in source if drop is None else read_live(source, drop):
        number, dropped = number + 1 + taken.dropped, dropped + taken.dropped
        localized = LocalizedFrame(number, _name(taken), taken.timestamp_s, taken.dropped, dropped)
        frame = taken if unread is None else taken.after(unread)
        try:
            described = describe(frame.look())
        except ImageError as error:
            unread = frame
            yield replace(localized, error=str(error))
            continue
        if memory:
            memory.advance(frame.timestamp_s)
        answer = localize(described)
        tracker.follow(answer.matches, pace.step_to(frame), len(tracker.places) - (memory.recent if memory else 0))
        if memory:
            tracker.places.append(memory.remember(frame, described.image, described.features))
        unread = None
        answer = replace(answer, matches=answer.matches[:top_k])
        yield replace(localized, localization=answer, belief=_belief(tracker, places, top_k))


def _as_frame(frame: SequenceFrame | ImageLike | Path | str) -> SequenceFrame:
    if isinstance(frame, SequenceFrame):
        return frame
    return SequenceFrame(Path(frame) if isinstance(frame, str) else frame)


def _name(frame: SequenceFrame) -> str | None:
    return str(frame.image) if frame.name is None and isinstance(frame.image, Path) else frame.name


def _belief(tracker: PlaceTracker, places: Places, count: int) -> Belief:
    likeliest = tracker.likeliest(count)
    records = places.images([id for id, _ in likeliest]).by_id
    believed = [PlaceBelief(records[id].path, chance, records[id].position) for id, chance in likeliest]
    return Belief(tuple(believed), tracker.unknown)
